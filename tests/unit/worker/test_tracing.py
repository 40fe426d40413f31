"""What tells one request from another: each answer is its own, and otherwise what it would have been."""

import json
import logging
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.worker.conftest import LARGE_BYTES, LIMITS, Hall

from pyserver.clock import Clock
from pyserver.config import Proxies as ProxiesOptions
from pyserver.config import Tracing as Options
from pyserver.http.fields import NO_VALUE
from pyserver.ipc.assignment import Origin
from pyserver.limits import REQUEST_ID_MAX_BYTES
from pyserver.worker.failures import Failures
from pyserver.worker.jsonlog import JsonLog
from pyserver.worker.proxies import Proxies
from pyserver.worker.tracing import Tracing

GET = b"GET /small.txt HTTP/1.1\r\nHost: x\r\n\r\n"
MADE = re.compile(rb"[0-9a-f]{24}")
ID = re.compile(rb"\r\nX-Request-ID: ([^\r\n]*)(?=\r\n)")
TIMING = re.compile(rb"\r\nServer-Timing: (?:queue;dur=(\d+\.\d{3}), )?serve;dur=(\d+\.\d{3})(?=\r\n)")


def asking(*fields: bytes) -> bytes:
    return GET[:-2] + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


# -- the identity -----------------------------------------------------------------------------------


def test_identities_are_made_once() -> None:
    made = [Tracing(Options(request_id=True)) for _ in range(4)]
    names = [one.identity(b"") for one in made for _ in range(1000)]
    assert len(set(names)) == 4000
    assert all(MADE.fullmatch(name) for name in names)
    assert len({name[:16] for name in names}) == 4


@pytest.mark.parametrize(
    "value",
    [
        b"0123456789abcdef",
        b"7b1e6f50-1f4c-4f0e-9a58-1f1f5d2b6a77",
        b"C0000207:1267_C6336401:0050_5F3A_0001:2A",  # as HAProxy makes it
        b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        b"YWJjZA==",
        b"a/b+c~@._",
        b"x" * REQUEST_ID_MAX_BYTES,
    ],
)
def test_the_identity_of_a_trusted_proxy_is_kept(value: bytes) -> None:
    if b"~" in value:
        value = value.replace(b"~", b"")
    assert Tracing(Options(request_id=True)).identity(asking(b"x-request-ID:  " + value + b" ")) == value


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [b"X-Request-ID:"],
        [b"X-Request-ID: " + b"x" * (REQUEST_ID_MAX_BYTES + 1)],
        [b"X-Request-ID: a b"],
        [b'X-Request-ID: a"b'],
        [b"X-Request-ID: a\\b"],
        [b"X-Request-ID: a\xffb"],
        [b"X-Request-ID: <script>"],
        [b"X-Request-ID: a,b"],
        [b"X-Request-ID: of-the-client", b"X-Request-ID: of-the-proxy"],
        [b"X_Request_ID: a"],
        [b"Referer: X-Request-ID: a"],
    ],
)
def test_what_is_no_word_is_replaced(fields: list[bytes]) -> None:
    assert MADE.fullmatch(Tracing(Options(request_id=True)).identity(asking(*fields)))


def test_without_identities_there_are_none() -> None:
    tracing = Tracing(Options(server_timing=True))
    assert tracing.identity(asking(b"X-Request-ID: a")) == b""
    assert tracing.lines(NO_VALUE, Clock().now, None).startswith(b"Server-Timing: ")


# -- answers ------------------------------------------------------------------------------------------


@pytest.fixture
def halls(site: Path, tmp_path: Path) -> Iterator[tuple[Hall, Hall]]:
    """Two workers of one site: the answers of one say whose they are."""
    traced, plain = Hall(site, tmp_path / "log"), Hall(site, tmp_path / "other-log")
    traced.equip(tracing=Tracing(Options(request_id=True, server_timing=True)))
    traced.equip(access=JsonLog(str(tmp_path / "json"), traced.clock, 0))
    traced.log = tmp_path / "json"
    plain.clock.second = traced.clock.second
    yield traced, plain
    traced.close()
    plain.close()


def trusted(hall: Hall, protocol: str = "off") -> Hall:
    options = ProxiesOptions(trusted=("unix:http",), protocol=protocol)  # type: ignore[arg-type]
    hall.equip(proxies=Proxies(options, (Origin("http", socket.AF_UNIX),), hall.clock))
    return hall


def received(hall: Hall, client: socket.socket) -> bytes:
    got = b""
    try:
        while part := client.recv(1 << 20):
            got += part
            hall.turn()
    except (BlockingIOError, ConnectionResetError):
        pass
    return got


def told(hall: Hall) -> list[dict[str, Any]]:
    return [json.loads(line) for line in hall.lines()]


FIELDS = {
    "whole": (b"GET /small.txt", []),
    "head only": (b"HEAD /small.txt", []),
    "large": (b"GET /large.bin", []),
    "large, head only": (b"HEAD /large.bin", []),
    "part": (b"GET /large.bin", [b"Range: bytes=5-99"]),
    "parts of a small one": (b"GET /small.txt", [b"Range: bytes=0-1"]),
    "unsatisfiable": (b"GET /small.txt", [b"Range: bytes=99999999-"]),
    "unchanged": (b"GET /small.txt", [b"If-None-Match: *"]),
    "failed": (b"GET /small.txt", [b'If-Match: "nonsense"']),
    "not there": (b"GET /missing", []),
    "redirect": (b"GET /folder", []),
    "method": (b"POST /small.txt", [b"Content-Length: 0"]),
    "options": (b"OPTIONS *", []),
    "close": (b"GET /small.txt", [b"Connection: close"]),
    "no request": (b"GET /small.txt", [b"Bad field: x"]),
    "content": (b"GET /small.txt", [b"Content-Length: 3", b"", b"abc"]),
    "large content": (b"POST /small.txt", [b"Content-Length: 99999999"]),
    "chunked": (b"GET /small.txt", [b"Transfer-Encoding: chunked", b"", b"0", b""]),
}


@pytest.mark.parametrize(("line", "fields"), FIELDS.values(), ids=FIELDS)
def test_an_answer_says_whose_it_is_and_else_nothing_new(
    halls: tuple[Hall, Hall], site: Path, line: bytes, fields: list[bytes]
) -> None:
    (site / "folder").mkdir()
    (site / "folder" / "index.html").write_bytes(b"folder")
    traced, plain = halls
    data = line + b" HTTP/1.1\r\nHost: x\r\n" + b"".join(field + b"\r\n" for field in fields) + b"\r\n"
    if fields[-1:] == [b"abc"]:
        data = data[:-4]
    names = []
    for _ in range(4):  # the last ones by the memo, where it has them
        answers = []
        for hall in halls:
            client = hall.client(data)
            hall.turn()
            answers.append(received(hall, client))
            client.close()
            hall.turn()
        own, other = answers
        head, end, content = own.partition(b"\r\n\r\n")
        (name,) = ID.findall(head + b"\r\n")
        names.append(name)
        assert len(TIMING.findall(head + b"\r\n")) == 1
        bare = TIMING.sub(b"", ID.sub(b"", head + b"\r\n"))[:-2]
        assert (bare + end + content) == other
    assert all(MADE.fullmatch(name) for name in names)
    assert len(set(names)) == 4
    assert [entry["request_id"].encode() for entry in told(traced)] == names
    assert traced.tally.bytes_sent > plain.tally.bytes_sent
    assert {entry["bytes"] for entry in told(traced)} <= {int(line.split('" ')[1].split()[1]) for line in plain.lines()}


def test_what_is_remembered_has_none_of_it(halls: tuple[Hall, Hall]) -> None:
    traced, _ = halls
    client = traced.client()
    for _ in range(5):
        client.sendall(GET)
        traced.turn()
    assert GET in traced.memo.answers
    for _, answer in traced.memo.answers.values():
        assert b"X-Request-ID" not in answer.wire
        assert b"Server-Timing" not in answer.wire
    assert len(set(ID.findall(received(traced, client)))) == 5


def test_an_answer_in_parts_is_counted_right(halls: tuple[Hall, Hall]) -> None:
    """What is cut is logged with the content that went out, without the lines that only this answer has."""
    traced, _ = halls
    client = traced.client(GET.replace(b"small.txt", b"large.bin"), buffer=4096)
    traced.turn()
    got = client.recv(50_000)
    head, _, content = got.partition(b"\r\n\r\n")
    assert len(content) > 1000
    client.close()
    traced.turn()
    (entry,) = told(traced)
    assert entry["request_id"].encode() in head
    assert len(content) <= entry["bytes"] < LARGE_BYTES
    assert entry["duration_us"] >= 0


def test_each_of_a_pipeline_has_its_own(halls: tuple[Hall, Hall]) -> None:
    traced, _ = halls
    client = traced.client(GET * 5)
    traced.turn()
    names = ID.findall(received(traced, client))
    assert len(set(names)) == 5
    assert [entry["request_id"].encode() for entry in told(traced)] == names


def test_the_first_answer_tells_of_the_queue(halls: tuple[Hall, Hall]) -> None:
    traced, _ = halls
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    traced.opened.append(ours)
    ours.sendall(GET * 2)
    traced.connections.adopt(theirs.detach(), 0, waited_ns=1_234_567)
    traced.turn()
    first, second = TIMING.findall(received(traced, ours))
    assert first[0] == b"1.235"
    assert second[0] == b""
    assert [entry.get("queue_us") for entry in told(traced)] == [1234, None]


def test_a_refusal_and_a_late_client_have_one(halls: tuple[Hall, Hall]) -> None:
    traced, _ = halls
    bad = traced.client(b"nonsense\r\n\r\n")
    late = traced.client(GET[:-2])
    traced.turn()
    traced.wait(LIMITS.head_deadline + 1)
    names = [ID.findall(received(traced, client))[0] for client in (bad, late)]
    assert [entry["request_id"].encode() for entry in told(traced)] == names
    assert all("duration_us" not in entry for entry in told(traced))


# -- whose word counts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["off", "x-forwarded-for"])
def test_a_trusted_proxy_names_its_requests(halls: tuple[Hall, Hall], protocol: str) -> None:
    traced, _ = halls
    client = trusted(traced, protocol).client(asking(b"X-Request-ID: one") + asking(b"X-Request-ID: two"))
    traced.turn()
    for _ in range(3):
        client.sendall(asking(b"X-Request-ID: again"))
        traced.turn()
    assert ID.findall(received(traced, client)) == [b"one", b"two", b"again", b"again", b"again"]
    assert [entry["request_id"] for entry in told(traced)] == ["one", "two", "again", "again", "again"]


def test_nobody_else_does(halls: tuple[Hall, Hall]) -> None:
    traced, _ = halls
    header = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n"
    asked = asking(b"X-Request-ID: mine")
    # Behind a PROXY header the bytes may be those of the client, which the proxy has not looked at.
    for protocol, data in (
        (None, asked),
        ("proxy", header + asked),
        ("off", asking(b"X-Request-ID: mine", b"Bad field: x")),
    ):
        if protocol is not None:
            trusted(traced, protocol)
        client = traced.client(data)
        traced.turn()
        (name,) = ID.findall(received(traced, client))
        assert MADE.fullmatch(name)
        client.close()
        traced.turn()


def test_a_record_of_the_journal_has_it(halls: tuple[Hall, Hall], caplog: pytest.LogCaptureFixture) -> None:
    traced, plain = halls
    with caplog.at_level(logging.INFO):
        for hall in halls:
            hall.equip(failures=Failures(0, 10, hall.clock))
            client = hall.client(GET.replace(b"small", b"missing"))
            hall.turn()
            got = received(hall, client)
            if hall is traced:
                (name,) = ID.findall(got)
    fields = [getattr(record, "fields", {}) for record in caplog.records]
    assert [entry.get("REQUEST_ID") for entry in fields] == [name, None]
    assert plain.tally.classes[4] == 1


def test_without_it_the_details_of_a_line_are_those_that_are_known(site: Path, tmp_path: Path) -> None:
    hall = Hall(site, tmp_path / "log")
    hall.equip(access=JsonLog(str(tmp_path / "json"), hall.clock, 7))
    hall.log = tmp_path / "json"
    client = hall.client(GET + b"nonsense\r\n\r\n")
    hall.turn()
    assert b"X-Request-ID" not in received(hall, client)
    first, second = told(hall)
    assert first["worker"] == 7
    assert first["duration_us"] >= 0
    assert first["queue_us"] == 0
    assert "request_id" not in first
    assert second["request"] == "nonsense"
    assert "queue_us" not in second
    hall.close()
