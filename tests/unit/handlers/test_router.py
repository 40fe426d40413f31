from pathlib import Path

import pytest

from pyserver.clock import Clock
from pyserver.config import Limits, Site
from pyserver.files.resolve import RootError
from pyserver.handlers.router import Router, build
from pyserver.handlers.static import LookAgain, StaticSite
from pyserver.http.request import Request, parse_head
from pyserver.http.response import Head, Response


def ask(host: bytes, target: bytes = b"/") -> Request:
    return parse_head(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (target, host))


class Named:
    """A site that answers with its name."""

    misses_root = False

    def __init__(self, name: str) -> None:
        self.name = name

    def respond(self, _request: Request, _keep: bool) -> Response:
        return Response(200, Head(self.name.encode()))

    def tidy(self) -> list[LookAgain]:
        return []


SITES = [
    (("example.org", "www.example.org"), Named("exact")),
    (("*.example.org",), Named("below")),
    (("*.deep.example.org", "xn--bcher-kva.example"), Named("deep")),
    (("[2001:db8::1]", "192.0.2.1"), Named("address")),
    ((), Named("default")),
    (("*.localhost",), Named("local")),
]


@pytest.mark.parametrize(
    ("host", "site"),
    [
        (b"example.org", b"exact"),
        (b"EXAMPLE.org", b"exact"),  # T-47: lower case, no port, no final dot
        (b"example.org.", b"exact"),
        (b"example.org:8080", b"exact"),
        (b"www.example.org", b"exact"),  # the whole name before any "*."
        (b"a.example.org", b"below"),
        (b"a.b.c.example.org", b"below"),
        (b"a.www.example.org", b"below"),
        (b"deep.example.org", b"below"),  # "*." is not the name itself
        (b"a.deep.example.org", b"deep"),  # the longest
        (b"xn--bcher-kva.example", b"deep"),
        (b"[2001:db8::1]", b"address"),
        (b"[2001:DB8:0:0::1]:80", b"address"),  # however it is written (RFC 5952)
        (b"192.0.2.1", b"address"),
        (b"192.0.2.2", b"default"),
        (b"[2001:db8::2]", b"default"),
        (b"other.example", b"default"),
        (b"org", b"default"),
        (b"notexample.org", b"default"),  # labels, not letters
        (b"localhost", b"default"),
        (b"x.localhost", b"local"),
        (b"*.example.org", b"below"),  # a name like any other
    ],
)
def test_a_host_and_its_site(host: bytes, site: bytes) -> None:
    answer = Router(SITES).respond(ask(host), True)
    assert isinstance(answer, Response)
    assert answer.wire == site


def test_http_1_0_without_a_host_gets_the_default() -> None:
    answer = Router(SITES).respond(parse_head(b"GET / HTTP/1.0\r\n\r\n"), True)
    assert isinstance(answer, Response)
    assert answer.wire == b"default"


def test_an_absolute_target_is_asked_instead_of_host() -> None:
    # RFC 9112 3.2.2
    answer = Router(SITES).respond(ask(b"example.org", b"http://a.example.org/"), True)
    assert isinstance(answer, Response)
    assert answer.wire == b"below"


def test_without_a_default_the_first_is() -> None:
    answer = Router(SITES[:3]).respond(ask(b"other.example"), True)
    assert isinstance(answer, Response)
    assert answer.wire == b"exact"


def test_one_site_answers_by_itself(tmp_path: Path) -> None:
    assert isinstance(build((Site(str(tmp_path), hosts=("example.org",)),), Limits(), Clock()), StaticSite)


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RootError, match="nothing"):
        build((Site(str(tmp_path)), Site(str(tmp_path / "nothing"), hosts=("a",))), Limits(), Clock())


def test_no_site_sees_what_another_has_cached(tmp_path: Path) -> None:
    names = ("a", "b", "c")
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "page.html").write_text(f"page of {name}")
    (tmp_path / "b" / "only.html").write_text("only here")
    sites = build([Site(str(tmp_path / name), hosts=(f"{name}.example",)) for name in names], Limits(), Clock())
    for _ in range(3):
        for name in names:
            for target, content in ((b"/page.html", f"page of {name}"), (b"/only.html", "only here")):
                answer = sites.respond(ask(name.encode() + b".example", target), True)
                if not isinstance(answer, Response):
                    answer.run()
                    finished = answer.finish()
                    assert isinstance(finished, Response)
                    answer = finished
                assert (answer.status == 200) == (target == b"/page.html" or name == "b")
                assert answer.status != 200 or answer.wire.endswith(content.encode())
