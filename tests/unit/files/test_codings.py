import gzip
import re
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from pyserver.files.codings import BY_NAME, CAN_MAKE, CODINGS, EXTENSIONS

TEXT = b"".join(b"<li>line %d of a text that shrinks</li>\n" % n for n in range(5000))


def decoders() -> dict[bytes, Callable[[bytes], bytes]]:
    found: dict[bytes, Callable[[bytes], bytes]] = {b"gzip": gzip.decompress}
    if b"br" in CAN_MAKE:
        import brotli  # type: ignore[import-untyped]  # noqa: PLC0415

        found[b"br"] = brotli.decompress
    if b"zstd" in CAN_MAKE:
        import zstandard  # noqa: PLC0415

        found[b"zstd"] = lambda data: zstandard.ZstdDecompressor().decompress(data)
    return found


def test_our_order_of_preference() -> None:
    assert [coding.name for coding in CODINGS] == [b"zstd", b"br", b"gzip"]
    assert EXTENSIONS == (b".zst", b".br", b".gz")
    assert CAN_MAKE[-1] == b"gzip"  # comes with Python


@pytest.mark.parametrize("name", CAN_MAKE)
@pytest.mark.parametrize("content", [TEXT, b"x", b""])
def test_what_is_coded_can_be_decoded(name: bytes, content: bytes) -> None:
    coding = BY_NAME[name]
    for level in set(coding.effort):
        coded = coding.encode(content, level)
        assert decoders()[name](coded) == content
        assert coded == coding.encode(memoryview(content), level)  # equal content, equal bytes: the tag says so
    assert len(coding.encode(TEXT, coding.effort.at_once)) < len(TEXT) / 4


@pytest.mark.parametrize("name", CAN_MAKE)
def test_piece_by_piece(name: bytes) -> None:
    coding = BY_NAME[name]
    encoder = coding.start(coding.effort.fast, len(TEXT))
    coded = b"".join(encoder.compress(TEXT[at : at + 1000]) for at in range(0, len(TEXT), 1000)) + encoder.flush()
    assert decoders()[name](coded) == TEXT


def test_gzip_says_no_time_and_no_name() -> None:
    # RFC 1952 2.3: FLG and MTIME
    coded = BY_NAME[b"gzip"].encode(TEXT, 6)
    assert coded[:8] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00"
    assert zlib.decompress(coded, 31) == TEXT


@pytest.mark.skipif(b"zstd" not in CAN_MAKE, reason="python3-zstandard is not installed")
def test_windows_of_zstd_fit_http() -> None:
    # RFC 9659 3: a decoder of HTTP need not have more than 8 MiB
    import zstandard  # noqa: PLC0415

    coding = BY_NAME[b"zstd"]
    for level in set(coding.effort):
        encoder = coding.start(level, 1 << 30)
        start: Any = encoder.compress(bytes(1 << 20)) or encoder.compress(bytes(64 << 20))
        assert zstandard.get_frame_parameters(start).window_size <= 8 << 20


def test_a_recipe_is_fit_for_a_tag() -> None:
    # RFC 9110 8.8.3: etagc, and no quote in it
    recipes = {coding.recipe for coding in CODINGS}
    assert len(recipes) == len(CODINGS)
    assert all(re.fullmatch(rb"[a-z]+-[0-9a-f]{4}", recipe) for recipe in recipes)
