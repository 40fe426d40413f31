import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyserver.config.errors import whoever_we_are

NOBODY = 65534


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may search: pytest's own are closed to others."""
    path = Path(tempfile.mkdtemp(prefix="pyserver-test-"))
    path.chmod(0o755)
    yield path
    for folder in (path, *path.rglob("*")):
        if folder.is_dir() and not folder.is_symlink():
            folder.chmod(0o755)
    shutil.rmtree(path)


@pytest.fixture
def unprivileged(open_folder: Path) -> Iterator[str]:
    """Without the rights of root, which may everything and would find no fault; gives what messages call us."""
    if os.geteuid() != 0:
        yield whoever_we_are()
        return
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    yield "user nobody"
    os.seteuid(0)
    os.setegid(0)
    os.setgroups(groups)


@pytest.fixture
def as_owner() -> Callable[..., None]:
    """Run one call with the rights this test began with."""

    def run(call: Callable[..., object], *args: object) -> None:
        acting = os.geteuid()
        os.seteuid(os.getuid())
        call(*args)
        os.seteuid(acting)

    return run
