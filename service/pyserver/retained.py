"""The code of the workers as it was when the master had started, for the workers that come later.

Owns:    the compiled text of all modules that the process has not loaded, as bytes: nothing of it has run.
Never:   loads a module, or makes anything of the bytes, in the process that keeps them.
Fails:   never: a module that cannot be compiled is not kept, and whoever imports it is told by the import itself.
Used by: master.main, as soon as its first workers are ready.

A worker is forked and loads what answers clients only then. An upgrade puts new files below a master that runs: one
that is not told to follow, because the new version does not take the configuration, or not yet. Without this a worker
that has to be replaced meanwhile would be made of both versions, or of files that are being unpacked.
"""

import importlib.util
import marshal
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType


class Retained(MetaPathFinder):
    """The modules of a package that are not loaded yet; first on sys.meta_path they are found here, not on the disk."""

    def __init__(self, package: ModuleType) -> None:
        self._loaders: dict[str, SourceFileLoader] = {}
        for place in package.__path__:
            for path in Path(place).rglob("*.py"):
                parts = [package.__name__, *path.relative_to(place).with_suffix("").parts]
                self._keep(".".join(parts).removesuffix(".__init__"), str(path))

    def _keep(self, name: str, path: str) -> None:
        if name in sys.modules or name in self._loaders:
            return
        try:
            code = SourceFileLoader(name, path).get_code(name)
        except (ImportError, OSError, SyntaxError, ValueError):
            return  # what is wrong with it concerns nobody but those who import it
        self._loaders[name] = _Loader(name, path, marshal.dumps(code))

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Answer the import system: where the module comes from, if it is kept."""
        del path, target
        loader = self._loaders.get(fullname)
        return None if loader is None else importlib.util.spec_from_file_location(fullname, loader.path, loader=loader)


class _Loader(SourceFileLoader):
    """One module, whose file may be another by now, or gone."""

    def __init__(self, name: str, path: str, compiled: bytes) -> None:
        super().__init__(name, path)
        self._compiled = compiled

    def get_code(self, fullname: str) -> CodeType:
        del fullname
        code: CodeType = marshal.loads(self._compiled)  # noqa: S302  # nosec B302  # ours: it was never outside of this process
        return code


def retain(package: ModuleType) -> None:
    """From now on import what of a package is not loaded yet as it is at this moment, here and in forked children."""
    sys.meta_path.insert(0, Retained(package))
