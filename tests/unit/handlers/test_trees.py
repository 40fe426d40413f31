from pathlib import Path

import pytest

from pyserver.files.resolve import Root
from pyserver.handlers.trees import Trees


@pytest.mark.parametrize(
    ("path", "prefix"),
    [
        (b"/", b""),
        (b"/x/static/a", b""),
        (b"/static", b"/static"),
        (b"/static/", b"/static"),
        (b"/static/a", b"/static"),
        (b"/static-private/a", b""),  # T-2: lighttpd mod_alias, nginx alias off by a slash
        (b"/staticx", b""),
        (b"/static/deep", b"/static/deep"),  # the longest
        (b"/static/deep/a", b"/static/deep"),
        (b"/static/deeper/a", b"/static"),
        (b"/caf\xc3\xa9/a", b"/caf\xc3\xa9"),
        (b"/caf", b""),
    ],
)
def test_the_longest_by_whole_segments(tmp_path: Path, path: bytes, prefix: bytes) -> None:
    root = Root(tmp_path)
    trees = Trees(root, [(alias, root) for alias in ("/static/", "/static/deep/", "/caf\u00e9/")])
    assert trees.of(path).prefix == prefix
    assert len(list(trees)) == 4
