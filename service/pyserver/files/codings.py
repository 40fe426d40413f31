"""The content codings that we write, each with the name it has in HTTP and the one it has beside a file.

Owns:    the table of codings, the best one first, and how hard each is tried.
Never:   decides who gets which coding (http.negotiation), or touches the disk.
Fails:   never while coding; a coding whose library is not installed cannot be made, and `can_make` says so.
Used by: files.variants, files.survey (find siblings), handlers (make variants), compress (writes siblings); worker.main
         (how many there are).

Of the three only gzip comes with Python. The other libraries are optional: python3-brotli and python3-zstandard in
Debian and Fedora, Brotli and zstandard on PyPI. Variants that somebody else made are served without them.
"""

import importlib
import zlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Final, NamedTuple, Protocol


def _library(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


_brotli: Final = _library("brotli")
_zstandard: Final = _library("zstandard")


class Encoder(Protocol):
    """Content in, coded content out, piece by piece. Both calls give the interpreter lock up while they work."""

    def compress(self, piece: bytes | memoryview, /) -> bytes:
        """Take a piece, and return what is ready."""

    def flush(self) -> bytes:
        """Return the rest."""


class Effort(NamedTuple):
    """The levels of one coding, by what they are for."""

    at_once: int  # somebody waits for other things: about 6 ms for 256 KiB of text, whichever coding
    fast: int  # of `pyserver compress --level`
    good: int
    best: int


class Coding(NamedTuple):
    """One content coding (RFC 9110 8.4.1)."""

    name: bytes  # as in Content-Encoding
    extension: bytes  # of a sibling
    effort: Effort
    version: str  # of the library: another one may write other bytes; empty without library
    package: str  # that has it in Debian and Fedora
    start: Callable[[int, int], Encoder]  # by level and size

    @property
    def can_make(self) -> bool:
        """Tell whether the library is there."""
        return bool(self.version)

    @property
    def recipe(self) -> bytes:
        """Return what tells content that we coded at once from other codings of the same content, for its tag."""
        made_by = f"{self.version} {self.effort.at_once}".encode()
        return b"%b-%04x" % (self.name, zlib.crc32(made_by) & 0xFFFF)

    def encode(self, content: bytes | memoryview, level: int) -> bytes:
        """Return all of `content` coded."""
        encoder = self.start(level, len(content))
        return encoder.compress(content) + encoder.flush()


def _gzip(level: int, _size: int) -> Encoder:
    # 16 more than the window's bits is gzip instead of zlib (RFC 1952); its time stays 0, so that equal is equal.
    return zlib.compressobj(level, zlib.DEFLATED, 16 + zlib.MAX_WBITS)


class _Brotli:
    """RFC 7932, with the method names of the others."""

    __slots__ = ("_encoder",)

    def __init__(self, level: int, _size: int) -> None:
        assert _brotli is not None
        self._encoder: Any = _brotli.Compressor(quality=level)

    def compress(self, piece: bytes | memoryview, /) -> bytes:
        coded: bytes = self._encoder.process(piece)
        return coded

    def flush(self) -> bytes:
        coded: bytes = self._encoder.finish()
        return coded


def _zstd(level: int, size: int) -> Encoder:
    # RFC 9659 3: no window beyond 8 MiB. Level 19 is the last that keeps to that by itself.
    assert _zstandard is not None
    encoder: Encoder = _zstandard.ZstdCompressor(level=level).compressobj(size=size)
    return encoder


def _version(library: ModuleType | None) -> str:
    return "" if library is None else str(library.__version__)


# In our order of preference. At equal effort zstd and brotli are alike in size; zstd is the quicker one to decode.
CODINGS: Final = (
    Coding(
        b"zstd",
        b".zst",
        Effort(9, fast=6, good=12, best=19),
        _version(_zstandard),
        "python3-zstandard",
        _zstd,
    ),
    Coding(
        b"br",
        b".br",
        Effort(6, fast=5, good=9, best=11),
        _version(_brotli),
        "python3-brotli",
        _Brotli,
    ),
    Coding(b"gzip", b".gz", Effort(6, fast=6, good=9, best=9), zlib.ZLIB_RUNTIME_VERSION, "python3", _gzip),
)

BY_NAME: Final[Mapping[bytes, Coding]] = {coding.name: coding for coding in CODINGS}
EXTENSIONS: Final = tuple(coding.extension for coding in CODINGS)
CAN_MAKE: Final = tuple(coding.name for coding in CODINGS if coding.can_make)
