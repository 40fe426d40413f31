"""Lists of hostile paths: nothing gets out of the root, nothing becomes a header line or another host."""

import re

import pytest
from tests.corpus.sources import lines

from pyserver.http import target
from pyserver.http.errors import ProtocolError

PAYLOADS = {
    "traversal.txt": lines("traversal.txt"),
    "crlf.txt": lines("crlf.txt"),
    "redirect.txt": [line.replace(b"{target}", b"evil.example") for line in lines("redirect.txt")],
}

LOCATION = re.compile(rb"/(?!/)[A-Za-z0-9._~!$&'()*+,;=:@/%-]*")


@pytest.mark.parametrize("name", PAYLOADS)
def test_payloads_stay_inside(name: str) -> None:
    if not PAYLOADS[name]:
        pytest.skip("the corpora are not beside the repository")
    for payload in PAYLOADS[name]:
        for prefix in (b"/", b"/a/", b"/a/b/../", b"//"):
            check(prefix + payload)


def check(path: bytes) -> None:
    try:
        cleaned = target.clean(path)
    except ProtocolError as error:
        assert (error.status, error.close) == (400, False)  # noqa: PT017  # either way is fine
        return
    assert cleaned.startswith(b"/")
    names = cleaned[1:].removesuffix(b"/").split(b"/")
    assert names == [b""] or not {b"", b".", b".."} & set(names), path
    assert not re.search(rb"[\x00-\x1f\x7f\\]", cleaned), path
    assert LOCATION.fullmatch(target.encode(cleaned)), path
    assert target.clean(target.encode(cleaned)) == cleaned, path
