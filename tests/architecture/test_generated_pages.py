import re
import tomllib
from pathlib import Path

import pytest
from docs.generate import OF_AN_INSTANCE, PROJECT, instance, options_page, sample, security_page, template_of

from pyserver.config import OPTIONS, Override, load
from pyserver.sd.events import catalog

HOW = "PYTHONPATH=service python3 docs/generate.py"


def test_the_options_page_is_what_the_table_says() -> None:
    assert (PROJECT / "docs/options.md").read_text() == options_page(), HOW


def test_the_page_of_security_fields_is_what_the_tables_say() -> None:
    assert (PROJECT / "docs/security.md").read_text() == security_page(), HOW


def test_the_packaged_configuration_is_what_the_table_says() -> None:
    assert (PROJECT / "systemd/pyserver.toml").read_text() == sample(), HOW


def test_the_message_catalog_is_what_the_table_says() -> None:
    assert (PROJECT / "systemd/pyserver.catalog").read_text() == catalog(), HOW


@pytest.mark.parametrize("unit", OF_AN_INSTANCE)
def test_the_units_of_instances_are_those_of_the_service(unit: str) -> None:
    assert template_of(unit).read_text() == instance(unit), HOW


def test_the_packaged_configuration_is_the_defaults_and_a_root() -> None:
    assert tomllib.loads(sample()) == {
        "site": [{"root": "/var/www/pyserver"}],
        "server": {},
        "limits": {},
        "clients": {},
        "proxies": {},
        "log": {},
        "tracing": {},
    }


@pytest.mark.parametrize("comments", ["kept", "removed"])
def test_the_packaged_configuration_means_the_defaults(tmp_path: Path, comments: str) -> None:
    text = sample() if comments == "kept" else re.sub(r"^#(?=\S)", "", sample(), flags=re.MULTILINE)
    assert comments == "kept" or all(f"\n{option.key} = " in text for option in OPTIONS.values())
    file = tmp_path / "etc/pyserver.toml"
    file.parent.mkdir()
    (tmp_path / "www").mkdir()
    file.write_text(text)
    root = [Override("--root", str(tmp_path / "www"))]
    packaged, defaults = load(str(file), root), load(None, root)
    assert (packaged.server, packaged.limits, packaged.log) == (defaults.server, defaults.limits, defaults.log)
    assert (packaged.listen, packaged.sites, packaged.warnings) == (defaults.listen, defaults.sites, ())
