import importlib
import marshal
import shutil
import sys
from collections.abc import Iterator
from importlib.util import MAGIC_NUMBER, cache_from_source
from pathlib import Path
from types import ModuleType

import pytest
from tests.unit.processes import run_forked

from pyserver.retained import retain

NAME = "pyserver_retained_here"
FILES = {
    "__init__.py": "",
    "early.py": "version = 1",
    "late.py": "version = 1",
    "broken.py": "def",
    "deep/__init__.py": "",
    "deep/late.py": f"from {NAME}.late import version\nplace = __file__",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A package of version 1, of which two modules are loaded; after that the files on the disk are of version 2."""
    folder = tmp_path / NAME
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    package = importlib.import_module(NAME)
    importlib.import_module(f"{NAME}.early")
    retain(package)
    for path in folder.rglob("*.py"):
        path.write_text("version = 2")
    yield package
    for name in [name for name in sys.modules if name.startswith(NAME)]:
        del sys.modules[name]


def version(module: str) -> object:
    return importlib.import_module(f"{NAME}.{module}").version


def test_what_is_imported_later_is_what_was_there_then(package: ModuleType) -> None:
    assert [version(module) for module in ("early", "late", "deep.late")] == [1, 1, 1]
    assert sys.modules[f"{NAME}.deep.late"].place == f"{package.__path__[0]}/deep/late.py"


def compiled(path: Path, version: int, *, as_if: str) -> None:
    """Leave beside a module a compiled text that is not what the module says."""
    code = compile(f"version = {version}", str(path), "exec")
    stat = path.stat()
    size, mtime = stat.st_size, int(stat.st_mtime) - (as_if == "older")
    head = MAGIC_NUMBER + (0).to_bytes(4, "little") + mtime.to_bytes(4, "little") + size.to_bytes(4, "little")
    cached = Path(cache_from_source(str(path)))
    cached.parent.mkdir(exist_ok=True)
    cached.write_bytes(head + marshal.dumps(code))


@pytest.mark.parametrize(("as_if", "expected"), [("of this", 3), ("older", 1)])
def test_what_was_compiled_before_is_taken_as_it_is_if_it_is_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_if: str, expected: int
) -> None:
    folder = tmp_path / NAME
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "late.py").write_text("version = 1")
    compiled(folder / "late.py", 3, as_if=as_if)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    package = importlib.import_module(NAME)
    try:
        retain(package)
        shutil.rmtree(folder)
        assert version("late") == expected
    finally:
        for name in [name for name in sys.modules if name.startswith(NAME)]:
            del sys.modules[name]


def test_files_need_not_be_there_any_more(package: ModuleType) -> None:
    shutil.rmtree(package.__path__[0])
    assert version("deep.late") == 1


def test_nothing_is_loaded_by_it(package: ModuleType) -> None:
    assert {name for name in sys.modules if name.startswith(NAME)} == {package.__name__, f"{NAME}.early"}


def test_a_forked_child_has_it_too(package: ModuleType) -> None:
    shutil.rmtree(package.__path__[0])
    assert run_forked(lambda: version("late")) == 1


@pytest.mark.usefixtures("package")
def test_what_could_not_be_compiled_is_as_it_lies_there() -> None:
    assert version("broken") == 2


@pytest.mark.usefixtures("package")
def test_what_was_not_there_is_not_to_be_found() -> None:
    with pytest.raises(ModuleNotFoundError):
        version("nowhere")
