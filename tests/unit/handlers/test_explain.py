"""That it is what the server answers is in tests/service/test_explain.py."""

import os
from pathlib import Path

import pytest
from tests.unit.files.process import open_descriptors

from pyserver.config import Alias, Config, FieldRule, Redirect, Site
from pyserver.files.resolve import RootError
from pyserver.handlers.explain import explain


def steps(config: Config, target: str, *fields: str) -> list[tuple[str, str]]:
    lines = (f"GET {target} HTTP/1.1", *fields, "", "")
    return [(step.about, step.what) for step in explain(config, "\r\n".join(lines).encode()).steps]


@pytest.fixture
def www(tmp_path: Path) -> Path:
    (tmp_path / "www").mkdir()
    (tmp_path / "www/page.txt").write_text("0123456789")
    os.utime(tmp_path / "www/page.txt", (10**9, 10**9))
    return tmp_path / "www"


@pytest.fixture
def config(www: Path) -> Config:
    return Config(sites=(Site(str(www), hosts=("a.example", "*.a.example")), Site(str(www.parent))))


def test_each_decision_in_its_order(config: Config, www: Path) -> None:
    found = steps(config, "/%70age.txt", "Host: www.a.example", "If-Match: *", "Range: bytes=9-")
    assert found[:4] == [
        ("site", f"www.a.example: root {www}, for a.example, *.a.example"),
        ("path", "/page.txt"),
        ("links", "beneath: all that stay in the folder are followed"),
        ("file", "/page.txt, 10 bytes, text/plain; charset=utf-8"),
    ]
    assert found[4][0] == "validators"
    assert found[5:] == [
        ("fields", "X-Content-Type-Options: nosniff"),
        ("preconditions", "if-match: *: met"),
        ("range", "bytes=9-: 9-9 of 10 bytes"),
    ]


def test_the_default_site(config: Config, www: Path) -> None:
    assert steps(config, "/", "Host: other")[0] == ("site", f"other: root {www.parent}, for all other hosts")


@pytest.mark.parametrize("hosts", [["b.example"], ["b.example", "*.c.example"]])
def test_the_first_site_where_none_is_for_the_host(www: Path, hosts: list[str]) -> None:
    config = Config(sites=tuple(Site(str(www), hosts=(host,)) for host in hosts))
    because = "no site is for it, so the first answers: "
    what = f"root {www}, for b.example"
    assert steps(config, "/", "Host: a.example")[0] == ("site", f"a.example: {because}{what}")
    assert steps(config, "/", "Host: c.example")[0] == ("site", f"c.example: {because}{what}")
    assert steps(config, "/", "Host: b.example")[0] == ("site", f"b.example: {what}")


def test_a_site_is_for_all_hosts_below_its_own(config: Config, www: Path) -> None:
    for host in ("www.a.example", "a.b.a.example"):
        assert steps(config, "/", f"Host: {host}")[0] == ("site", f"{host}: root {www}, for a.example, *.a.example")


def test_why_there_is_no_file(config: Config, www: Path) -> None:
    (www.parent / "out").symlink_to("/etc/passwd")
    assert steps(config, "/out", "Host: b")[-1] == ("file", "none: leads out of the root (symlinks = beneath)")
    assert steps(config, "/no", "Host: b")[-1] == ("file", "none: no such file or directory")


def test_the_rules_of_a_site(www: Path) -> None:
    (www.parent / "static").mkdir()
    (www.parent / "static/a.css").touch()
    rule = FieldRule("/static/**", {"Cache-Control": "no-cache"})
    site = Site(
        str(www),
        aliases=(Alias("/static/", str(www.parent / "static")),),
        redirects=(Redirect("/old", "/new"),),
        fields=(rule, FieldRule("*.html", {"X-Page": "yes"})),
        errors={404: "/page.txt"},
    )
    config = Config(sites=(site,))
    found = dict(steps(config, "/static/a.css", "Host: a"))
    assert found["alias"] == f"/static/ is {www.parent}/static"
    assert found["fields"] == "X-Content-Type-Options: nosniff; Cache-Control: no-cache (by /static/**)"
    assert steps(config, "/old", "Host: a")[-1] == ("redirect", "301 to /new")
    assert steps(config, "/missing", "Host: a")[-2:] == [
        ("file", "none: no such file or directory"),
        ("error page", "/page.txt, with status 404"),
    ]


def test_nothing_stays_open(config: Config, www: Path) -> None:
    (www / "large").write_bytes(bytes(1_000_000))
    before = open_descriptors()
    assert steps(config, "/large", "Host: a.example")[3][0] == "file"
    assert open_descriptors() == before


def test_a_root_that_cannot_be_served(www: Path) -> None:
    with pytest.raises(RootError):
        explain(Config(sites=(Site(str(www / "gone")),)), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
