"""The recipe of the image fits the tree. That it serves as PID 1 is shown in tests/service/test_init.py."""

import json
import re
import signal
from pathlib import Path

from tests.packaging.builds import TREE

from pyserver import signals
from pyserver.cli import build_parser, serve

RECIPE = (TREE / "packaging/container/Containerfile").read_text()


def last(instruction: str) -> str:
    return str(re.findall(rf"^{instruction} (.+)$", RECIPE, re.MULTILINE)[-1])


def test_its_command_is_one_that_serves_at_the_port_that_it_exposes() -> None:
    given = build_parser().parse_args(json.loads(last("CMD")))
    assert given.run is serve
    values = {override.option: override.value for override in given.overrides}
    assert values["--bind"] == f"0.0.0.0:{last('EXPOSE')}"
    assert Path(json.loads(last("ENTRYPOINT"))[0]).name == "pyserver"


def test_it_is_nobodys_root_and_is_stopped_by_a_signal_that_drains() -> None:
    assert int(last("USER")) > 0
    assert signal.Signals[last("STOPSIGNAL")] in signals.ORDERS


def test_it_takes_the_posix_ipc_that_the_packages_carry() -> None:
    (version,) = re.findall(r"posix_ipc==(\S+)", RECIPE)
    sums = (TREE / "packaging/vendor/SHA256SUMS").read_text()
    assert all(f"  posix_ipc-{version}-" in line for line in sums.splitlines())


def test_what_it_copies_is_there() -> None:
    for names in re.findall(r"^COPY (?!--from)(.+) \S+$", RECIPE, re.MULTILINE):
        assert all((TREE / name).exists() for name in names.split())
