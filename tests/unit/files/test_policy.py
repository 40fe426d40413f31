import time

import pytest

from pyserver.files.policy import hidden


@pytest.mark.parametrize(
    "path",
    [
        b"/.git/config",  # T-12
        b"/.git",
        b"/.env",
        b"/.htpasswd",
        b"/a/.hidden/b.html",
        b"/a/.hidden",
        b"/...",
        b"/.GIT/config",
        b"/page.html~",
        b"/~/page.html",
        b"/page.bak",
        b"/page.html.BAK",  # on a mount where case does not matter it is the same file (Caddy #7548)
        b"/page.html.orig",
        b"/page.html.rej",
        b"/page.html.old",
        b"/page.html.swp",
        b"/page.html.save",
        b"/conf.dpkg-old",
        b"/conf.rpmsave",
        b"/#page.html#",
        b"/site.bak/page.html",  # folders too
        b"/page.html~.",  # T-13: CIFS, NTFS and vfat drop these and open what is left
        b"/page.bak...",
        b"/page.bak ",
        b"/page.bak. .",
        b"/page.bak::$DATA",
        b"/page.bak:stream/",
        b"/x/.well-known/a",  # RFC 8615 3: at the top of the origin only
        b"/.well-known/.git/config",
        b"/.well-known/key.bak",
        b"/.well-known-not",
        b"/.Well-Known/a",
    ],
)
def test_hidden(path: bytes) -> None:
    assert hidden(path)


@pytest.mark.parametrize(
    "path",
    [
        b"/",
        b"/index.html",
        b"/a/b/",
        b"/.well-known",
        b"/.well-known/",
        b"/.well-known/acme-challenge/token_-A",  # RFC 8555 8.3
        b"/.well-known/security.txt",
        b"/a.b/c.d.e",
        b"/~user/index.html",  # the tilde is in front
        b"/bak",
        b"/bakery.html",
        b"/a.bakery",
        b"/archive.old.zip",
        b"/what is this.",
        b"/Acme Inc./index.html",
        b"/a:b",
        b"/c#.html",
        b"/books about c#",
        b"/#1",
        b"/caf\xc3\xa9",
        b"/\xff",
    ],
)
def test_not_hidden(path: bytes) -> None:
    assert not hidden(path)


@pytest.mark.parametrize("unit", [b"~", b"~.", b"/~. ", b".bak", b".bak. ", b"#:", b"#", b"/#", b"/", b"a"])
def test_time_is_linear_in_the_path(unit: bytes) -> None:
    path = b"/" + unit * (8192 // len(unit)) + b"x"
    before = time.perf_counter()
    hidden(path)
    assert time.perf_counter() - before < 0.05
