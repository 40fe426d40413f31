"""The code of the workers as it was when the master had started, for the workers that come later.

Owns:    the compiled text of all modules that the process has not loaded, as bytes: nothing of it has run.
Never:   loads a module, or makes anything of the bytes, in the process that keeps them.
Fails:   never: a module that cannot be compiled is not kept, and whoever imports it is told by the import itself.
Used by: master.main, while its first workers start; after an execution, before the stand-in is relieved.

A worker is forked and loads what answers clients only then. An upgrade puts new files below a master that runs: one
that is not told to follow, because the new version does not take the configuration, or not yet. Without this a worker
that has to be replaced meanwhile would be made of both versions, or of files that are being unpacked.
"""

import importlib.util
import marshal
import os
import struct
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import MAGIC_NUMBER, cache_from_source
from types import CodeType, ModuleType
from typing import Final

# What follows the magic number: how it is told whether the source is the same, by which time of change and size.
_OF_SOURCE: Final = struct.Struct("<III")
_BY_TIME: Final = 0
_UINT_MAX: Final = (1 << 32) - 1


class Retained:
    """The modules of a package that are not loaded yet; first on sys.meta_path they are found here, not on the disk.

    A MetaPathFinder, but not by birth: importlib.abc loads archives and temporary files too, 4 to 8 ms of them.
    """

    def __init__(self, package: ModuleType) -> None:
        self._loaders: dict[str, SourceFileLoader] = {}
        for place in package.__path__:
            for folder, _, files in os.walk(place):
                above = [package.__name__, *folder.removeprefix(place).split("/")[1:]]
                for file in files:
                    if file.endswith(".py"):
                        name = ".".join([*above, file.removesuffix(".py")]).removesuffix(".__init__")
                        self._keep(name, f"{folder}/{file}")

    def _keep(self, name: str, path: str) -> None:
        if name in sys.modules or name in self._loaders:
            return
        try:
            loader = SourceFileLoader(name, path)
            compiled = _on_disk(loader) or marshal.dumps(loader.get_code(name))
        except (ImportError, OSError, SyntaxError, ValueError):
            return  # what is wrong with it concerns nobody but those who import it
        self._loaders[name] = _Loader(name, path, compiled)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Answer the import system: where the module comes from, if it is kept."""
        del path, target
        loader = self._loaders.get(fullname)
        return None if loader is None else importlib.util.spec_from_file_location(fullname, loader.path, loader=loader)


def _on_disk(loader: SourceFileLoader) -> bytes:
    """Return the compiled text that lies beside a module, if it is of the file as it is now (PEP 552); else nothing.

    The import system would tell too, and make an object of it, only for that to be written out again: 15 ms for all.
    """
    try:
        source = loader.path_stats(loader.path)
        cached = loader.get_data(cache_from_source(loader.path))
    except (OSError, NotImplementedError):
        return b""
    head = MAGIC_NUMBER + _OF_SOURCE.pack(_BY_TIME, int(source["mtime"]) & _UINT_MAX, source["size"] & _UINT_MAX)
    return cached[len(head) :] if cached.startswith(head) else b""


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
