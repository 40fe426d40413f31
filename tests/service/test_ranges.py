"""Ranges of files as clients see them: whole downloads put together from parts (RFC 9110 14, 15.3.7)."""

import email
import email.policy
import os
import re
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from pathlib import Path

import pytest
from tests.service.client import Answer, request
from tests.service.conftest import Serve
from tests.service.harness import wait_until

KIB = 1024
MIB = 1024 * KIB


def parts(answer: Answer) -> list[tuple[int, bytes]]:
    """Where each part begins, and the part."""
    assert answer.status == 206
    head = f"Content-Type: {answer.fields['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + answer.content, policy=email.policy.HTTP)
    assert isinstance(message, EmailMessage)
    assert message.get_content_type() == "multipart/byteranges"
    # By the boundary and not by the module, which reads lines and takes a lone CR or LF of a file for their end.
    boundary = message.get_boundary()
    assert boundary is not None
    begin, *raw, end = (b"\r\n" + answer.content).split(b"\r\n--" + boundary.encode())
    assert (begin, end) == (b"", b"--\r\n")
    found = []
    for one in raw:
        fields, _, content = one.partition(b"\r\n\r\n")
        numbers = re.search(rb"\r\nContent-Range: bytes ([0-9]+)-([0-9]+)/([0-9]+)(?:\r\n|$)", fields)
        assert numbers is not None
        first, last, _ = map(int, numbers.groups())
        assert last - first + 1 == len(content)
        found.append((first, content))
    return found


@pytest.fixture
def settled(site: Path, large: bytes) -> Path:
    """A large file, from long ago."""
    path = site / "large.bin"
    path.write_bytes(large)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    return path


def test_parts_of_a_large_file_to_a_slow_reader(serve: Serve, settled: Path, large: bytes) -> None:
    server = serve()
    spans = [(19 * MIB, 20 * MIB), (0, 3 * MIB), (5 * MIB, 5 * MIB + 1), (9 * MIB, 12 * MIB + 7)]
    value = ",".join(f"{first}-{end - 1}" for first, end in spans)
    with server.client(receive_buffer=64 * KIB, within=20) as client:
        # Two answers and a further request wait in one send: nothing of one gets into the other.
        client.send(request("/large.bin", f"Range: bytes={value}") * 2 + request("/small.txt"))
        for _ in range(2):
            assert parts(client.answer()) == [(first, large[first:end]) for first, end in spans]
        assert client.answer().content == b"small\n"


def test_a_file_put_together_from_parts(serve: Serve, settled: Path, large: bytes) -> None:
    server = serve()
    step = 128 * KIB
    got = bytearray(len(large))
    with server.client(within=20) as client:
        # Every second block, then the others: 32 of them in one request.
        starts = [*range(0, len(large), 2 * step), *range(step, len(large), 2 * step)]
        for n in range(0, len(starts), 32):
            value = ",".join(f"{first}-{first + step - 1}" for first in starts[n : n + 32])
            for first, content in parts(client.ask("/large.bin", f"Range: bytes={value}")):
                got[first : first + len(content)] = content
    assert got == large


def test_a_download_is_resumed_only_of_the_same_file(serve: Serve, settled: Path, large: bytes) -> None:
    """T-30: with If-Range, what is put together is one file or the other."""
    server = serve()

    def tag() -> str:
        return server.ask("/large.bin", method="HEAD").fields["etag"]

    def rest(validator: str) -> Answer:
        return server.ask("/large.bin", "Range: bytes=1000000-", f"If-Range: {validator}")

    wait_until(lambda: not tag().startswith("W/"))  # the file was made just now, so first it is weak
    old = tag()
    resumed = rest(old)
    assert (resumed.status, resumed.content) == (206, large[1_000_000:])
    settled.with_name("other").write_bytes(large[::-1])
    settled.with_name("other").rename(settled)

    def replaced() -> Answer | None:
        answer = rest(old)
        assert answer.content == (large[1_000_000:] if answer.status == 206 else large[::-1])
        return answer if answer.status == 200 else None

    # What came with a weak tag can never be resumed by it (RFC 9110 13.1.5).
    whole = wait_until(replaced)
    assert whole is not None
    new = whole.fields["etag"]
    assert new.startswith("W/")
    assert rest(new).status == 200
    wait_until(lambda: not tag().startswith("W/"))
    assert tag() == new.removeprefix("W/")
    assert rest(tag()).content == large[::-1][1_000_000:]


def test_eight_at_once_get_parts_of_one_file_or_are_told(serve: Serve, settled: Path, large: bytes) -> None:
    """As download managers do it, with the condition that they should send: 412, never a part of the other file."""
    server = serve()
    wait_until(lambda: not server.ask("/large.bin", method="HEAD").fields["etag"].startswith("W/"), within=20)
    tag = server.ask("/large.bin", method="HEAD").fields["etag"]
    step = 128 * KIB
    starts = list(range(0, len(large) - step, step))
    half = len(starts) // 2

    def part(first: int) -> int:
        answer = server.ask("/large.bin", f"Range: bytes={first}-{first + step - 1}", f"If-Match: {tag}", within=20)
        assert answer.status == 412 or answer.content == large[first : first + step]
        return answer.status

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(part, starts[:half])) == {206}
        rest = pool.map(part, starts[half:])
        settled.with_name("other").write_bytes(large[::-1])
        settled.with_name("other").rename(settled)
        assert set(rest) <= {206, 412}
    wait_until(lambda: {part(0) for _ in range(8)} == {412}, within=20)
