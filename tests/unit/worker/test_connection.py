"""Conversations with real sockets and a real site, from the first byte to the close."""

import contextlib
import logging
import os
import re
import socket
import struct
import time
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import cast

import pytest
from tests.unit.worker.conftest import LARGE_BYTES, LIMITS, Hall

from pyserver.handlers.router import Handler
from pyserver.ipc.activity import CurrentRequest, read_requests, read_threads
from pyserver.ipc.messages import Drain
from pyserver.limits import (
    BODY_DISCARD_MAX_BYTES,
    DRAIN_GRACE_S,
    PARKING_TICKS_PER_S,
    ROOT_MISSED_REST_S,
    SENDFILE_BYTES,
    SHOWN_AFTER_S,
    STALL_BYTES,
)
from pyserver.worker.client import Job, Phase
from pyserver.worker.records import peer_name

# A deadline may be noticed two ticks late.
LATE = 2 / PARKING_TICKS_PER_S
GET = b"GET /small.txt HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = b"GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n"


class Answer:
    """One answer out of what a client received."""

    def __init__(self, data: bytes, *, head_only: bool = False) -> None:
        self.head, _, rest = data.partition(b"\r\n\r\n")
        self.status = int(self.head.split(b" ")[1])
        length = re.search(rb"(?i)content-length: (\d+)", self.head)
        count = int(length[1]) if length and not head_only and self.status >= 200 else 0
        self.content, self.rest = rest[:count], rest[count:]
        self.closes = b"connection: close" in self.head.lower()


def heard(client: socket.socket, most: int = 1 << 30) -> bytes:
    """All that is there for a client at this moment, or so many bytes of it."""
    data = b""
    with contextlib.suppress(BlockingIOError):
        while got := client.recv(min(1 << 20, most - len(data))):
            data += got
    return data


def answers(client: socket.socket) -> list[Answer]:
    found, data = [], heard(client)
    while data:
        found.append(Answer(data))
        data = found[-1].rest
    return found


def is_closed(client: socket.socket) -> bool:
    """The other side has closed, or at least its direction."""
    try:
        return client.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def statuses(client: socket.socket) -> list[int]:
    return [answer.status for answer in answers(client)]


# -- answers and what follows them ------------------------------------------------------------------


def test_a_request_that_is_there_already_is_answered_at_once(hall: Hall) -> None:
    client = hall.client(GET)
    hall.turn()
    (answer,) = answers(client)
    assert (answer.status, answer.content, answer.closes) == (200, b"small\n", False)
    assert not is_closed(client)


def test_keep_alive(hall: Hall) -> None:
    client = hall.client()
    for _ in range(3):
        client.sendall(GET)
        hall.turn()
        assert statuses(client) == [200]
    assert hall.tally.requests == 3
    assert hall.tally.connections == 1


def test_pipelined_requests_are_answered_in_order(hall: Hall) -> None:
    client = hall.client(GET + b"GET /missing HTTP/1.1\r\nHost: x\r\n\r\n" + GET.replace(b"/small.txt", b"/") + GET)
    hall.turn()
    found = answers(client)
    assert [answer.status for answer in found] == [200, 404, 200, 200]
    assert found[2].content == b"<p>hello</p>"


def test_pipelining_behind_a_large_file(hall: Hall, site: Path) -> None:
    """What waits behind an answer that does not fit into the socket is answered after it."""
    client = hall.client(LARGE + GET, buffer=4096)
    data = b""
    while len(data) < (LARGE_BYTES):
        hall.turn()
        got = heard(client)
        assert got
        data += got
    hall.turn()
    data += heard(client)
    first = Answer(data)
    assert first.content == (site / "large.bin").read_bytes()
    second = Answer(first.rest)
    assert (second.status, second.content) == (200, b"small\n")


@pytest.mark.parametrize("cut", range(1, len(GET)))
def test_a_request_in_two_pieces(hall: Hall, cut: int) -> None:
    client = hall.client(GET[:cut])
    hall.turn()
    assert heard(client) == b""
    client.sendall(GET[cut:])
    hall.turn()
    assert statuses(client) == [200]


@pytest.mark.parametrize(
    ("request_", "closes"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", False),
    ],
    ids=["close", "1.0", "1.0 keep-alive", "1.1"],
)
def test_persistence_rfc_9112_9_3(hall: Hall, request_: bytes, closes: bool) -> None:
    client = hall.client(request_)
    hall.turn()
    (answer,) = answers(client)
    assert answer.closes is closes
    assert is_closed(client) is closes
    assert bool(hall.connections.table) is not closes


def test_a_client_that_ends_is_let_go(hall: Hall) -> None:
    client = hall.client(GET)
    hall.turn()
    client.close()
    hall.turn()
    assert not hall.connections.table


def test_a_client_that_has_said_all_and_closed_its_direction_gets_its_answer(hall: Hall) -> None:
    client = hall.client()
    client.sendall(GET)
    client.shutdown(socket.SHUT_WR)
    hall.turn()
    assert statuses(client) == [200]
    assert is_closed(client)


def test_a_client_that_resets_while_it_is_answered_is_let_go(hall: Hall) -> None:
    client = hall.client(LARGE, buffer=4096)
    hall.turn()
    client.close()
    hall.turn()
    assert not hall.connections.table
    assert hall.tally.failures == 0


# -- content ----------------------------------------------------------------------------------------


def test_content_is_thrown_away_and_never_taken_for_a_request(hall: Hall) -> None:
    smuggled = b"GET /missing HTTP/1.1\r\nHost: x\r\n\r\n"
    client = hall.client(
        b"GET /small.txt HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(smuggled) + smuggled + GET
    )
    hall.turn()
    assert statuses(client) == [200, 200]


@pytest.mark.parametrize("coded", [False, True], ids=["length", "chunked"])
def test_content_in_pieces(hall: Hall, coded: bool) -> None:
    content = b"5\r\nabcde\r\n3;x=y\r\nfgh\r\n0\r\nTrailer: x\r\n\r\n" if coded else b"abcdefgh"
    framing = b"Transfer-Encoding: chunked" if coded else b"Content-Length: 8"
    client = hall.client(b"GET / HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % framing)
    for byte in content:
        hall.turn()
        assert heard(client) == b""
        client.sendall(bytes([byte]))
    client.sendall(GET)
    hall.turn()
    assert statuses(client) == [200, 200]


def test_small_content_of_a_method_that_is_refused_keeps_the_connection(hall: Hall) -> None:
    client = hall.client(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" + GET)
    hall.turn()
    assert statuses(client) == [405, 200]


def test_large_content_of_a_method_that_is_refused_ends_it_at_once(hall: Hall) -> None:
    client = hall.client(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
    hall.turn()
    (answer,) = answers(client)
    assert (answer.status, answer.closes) == (405, True)
    assert is_closed(client)
    assert [each.phase for each in hall.connections.table.values()] == [Phase.LINGERING]


def test_too_much_content_is_413(hall: Hall) -> None:
    client = hall.client(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (BODY_DISCARD_MAX_BYTES + 1))
    hall.turn()
    (answer,) = answers(client)
    assert (answer.status, answer.closes) == (413, True)


def test_100_continue_rfc_9110_10_1_1(hall: Hall) -> None:
    client = hall.client(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    hall.turn()
    assert heard(client) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.sendall(b"abc")
    hall.turn()
    assert statuses(client) == [200]
    assert hall.tally.classes == [0, 1, 1, 0, 0, 0]


def test_100_continue_of_a_method_that_is_refused_is_the_final_answer(hall: Hall) -> None:
    client = hall.client(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    hall.turn()
    (answer,) = answers(client)
    assert (answer.status, answer.closes) == (405, True)


# -- what is no request -----------------------------------------------------------------------------


def test_nonsense_is_answered_and_ends_in_lingering(hall: Hall) -> None:
    client = hall.client(b"nonsense\r\n\r\n" + b"x" * 1000)
    hall.turn()
    (answer,) = answers(client)
    assert (answer.status, answer.closes) == (400, True)
    assert is_closed(client), "our direction is closed"
    client.sendall(b"more")
    hall.turn()
    assert len(hall.connections.table) == 1, "and what still comes is read"
    client.close()
    hall.turn()
    assert not hall.connections.table


def test_answers_before_nonsense_still_go_out(hall: Hall) -> None:
    client = hall.client(GET + GET + b"\x00\r\n\r\n")
    hall.turn()
    assert statuses(client) == [200, 200, 400]


# -- deadlines --------------------------------------------------------------------------------------


def test_a_client_that_says_nothing_is_let_go_without_a_word(hall: Hall) -> None:
    client = hall.client()
    hall.wait(LIMITS.head_deadline - 0.1)
    assert not is_closed(client)
    hall.wait(0.1 + LATE)
    assert is_closed(client)
    assert heard(client) == b""
    assert hall.tally.deadlines == 1


def test_a_head_that_trickles_has_one_deadline_for_all_of_it(hall: Hall) -> None:
    client = hall.client()
    for byte in GET[:9]:
        client.sendall(bytes([byte]))
        hall.turn()
        hall.wait(1)
    hall.wait(1 + LATE)
    (answer,) = answers(client)
    assert (answer.status, answer.closes) == (408, True)
    assert hall.tally.deadlines == 1


def test_the_head_deadline_of_a_later_request_begins_with_its_first_byte(hall: Hall) -> None:
    client = hall.client(GET)
    hall.turn()
    assert statuses(client) == [200]
    hall.wait(40)
    client.sendall(GET[:5])
    hall.turn()
    hall.wait(LIMITS.head_deadline - 0.1)
    assert not is_closed(client)
    hall.wait(0.1 + LATE)
    assert statuses(client) == [408]


def test_each_head_of_a_pipeline_has_a_deadline_of_its_own(hall: Hall) -> None:
    """A client whose next head has always begun is as good as one that waits for its answers."""
    client = hall.client(GET[:5])
    for _ in range(int(LIMITS.head_deadline) * 3):
        client.sendall(GET[5:] + GET[:5])
        hall.turn()
        assert statuses(client) == [200]
        hall.wait(1)
    hall.wait(LIMITS.head_deadline + LATE)
    assert statuses(client) == [408], "the last one never came to its end"


def test_an_idle_connection_is_let_go_after_keep_alive_without_a_word(hall: Hall) -> None:
    client = hall.client(GET)
    hall.turn()
    heard(client)
    hall.wait(LIMITS.keep_alive - 0.1)
    assert not is_closed(client)
    hall.wait(0.1 + LATE)
    assert is_closed(client)
    assert heard(client) == b""


def test_each_answer_starts_the_idle_time_anew(hall: Hall) -> None:
    client = hall.client(GET)
    for _ in range(5):
        hall.turn()
        assert statuses(client) == [200]
        hall.wait(LIMITS.keep_alive - 1)
        client.sendall(GET)
    hall.turn()
    assert statuses(client) == [200]


def test_content_has_one_deadline_for_all_of_it(hall: Hall) -> None:
    client = hall.client(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
    hall.turn()
    for _ in range(int(LIMITS.body_deadline) - 1):
        client.sendall(b"x")
        hall.turn()
        hall.wait(1)
        assert not is_closed(client)
    hall.wait(1 + LATE)
    assert statuses(client) == [408]


def test_a_reader_that_takes_nothing_is_cut_off(hall: Hall) -> None:
    client = hall.client(LARGE, buffer=4096)
    hall.turn()
    hall.wait(LIMITS.send_stall - 0.1)
    assert hall.connections.table
    hall.wait(0.1 + LATE)
    assert not hall.connections.table
    assert hall.tally.deadlines == 1
    assert len(heard(client)) < LARGE_BYTES
    assert " 200 " in hall.lines()[0], "what it got is in the log"


def test_a_slow_reader_that_makes_progress_is_served_to_the_end(hall: Hall) -> None:
    client = hall.client(LARGE, buffer=4096)
    received = 0
    while hall.connections.table and received < LARGE_BYTES:
        hall.turn()
        received += len(heard(client, 2 * STALL_BYTES))
        hall.turn()
        hall.wait(LIMITS.send_stall * 0.4)
    hall.turn()
    received += len(heard(client))
    assert received > LARGE_BYTES
    assert hall.tally.deadlines == 0


def test_a_steady_reader_is_served_on_while_the_kernel_has_enough_for_it(hall: Hall, site: Path) -> None:
    """The socket takes nothing new before most of a large buffer was read, which is no standstill."""
    with (site / "larger.bin").open("wb") as file:
        file.truncate(4 * SENDFILE_BYTES)
    client = hall.client(LARGE.replace(b"large", b"larger"))
    hall.turn()
    (connection,) = hall.connections.table.values()
    received, stood_still = 0, 0
    while (outgoing := connection.outgoing) is not None and hall.connections.table:
        before = outgoing.sent
        received += len(heard(client, STALL_BYTES * 5 // 4))
        hall.wait(LIMITS.send_stall * 0.9)
        stood_still += outgoing.sent == before
    assert stood_still > 2
    assert received + len(heard(client)) > 4 * SENDFILE_BYTES
    assert hall.tally.deadlines == 0


def test_a_reader_that_takes_a_drop_now_and_then_is_cut_off(hall: Hall) -> None:
    client = hall.client(LARGE, buffer=4096)
    for _ in range(200):
        hall.turn()
        if not hall.connections.table:
            break
        heard(client, 512)
        hall.wait(1)
    assert not hall.connections.table
    assert hall.tally.deadlines == 1


# -- the disk ---------------------------------------------------------------------------------------


def test_a_cold_file_is_a_job_and_the_connection_waits_for_it(hall: Hall, site: Path) -> None:
    evict(site / "small.txt")
    client = hall.client(GET + GET)
    if not hall.connections.jobs:
        pytest.skip("this file system keeps everything in memory")
    (connection,) = hall.connections.table.values()
    assert connection.phase is Phase.WORKING
    assert heard(client) == b""
    hall.turn()
    assert statuses(client) == [200, 200]


def evict(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def at_work(hall: Hall) -> tuple[socket.socket, Job]:
    """A client whose answer is with a follower."""
    hall.root.cold = True
    client = hall.client(GET)
    hall.root.cold = False
    (job,) = hall.connections.jobs
    hall.connections.jobs.clear()
    return client, job


def test_while_a_follower_works_no_byte_is_read_and_no_deadline_strikes(hall: Hall) -> None:
    client, job = at_work(hall)
    client.sendall(GET)
    hall.wait(LIMITS.send_stall * 3)
    assert heard(client) == b""
    assert hall.connections.table
    hall.do(job)
    hall.turn()
    assert statuses(client) == [200, 200]


def test_a_stale_event_does_not_disturb_a_connection_that_is_with_a_follower(hall: Hall) -> None:
    """A drain looks at idle connections itself; epoll may have reported them in the same round."""
    client, job = at_work(hall)
    (connection,) = hall.connections.table.values()
    client.sendall(GET)
    hall.connections.ready(connection)
    assert connection.phase is Phase.WORKING
    hall.do(job)
    hall.turn()
    assert statuses(client) == [200, 200]
    assert hall.tally.requests == 2


def test_a_client_that_is_cut_off_while_a_follower_works_keeps_its_descriptor_until_then(
    hall: Hall,
) -> None:
    _client, job = at_work(hall)
    (connection,) = hall.connections.table.values()
    hall.connections.holding.close(connection)
    assert not hall.connections.table
    os.fstat(connection.fd)
    hall.do(job)
    assert connection.socket.fileno() == -1


def test_an_error_of_ours_behind_a_follower_closes_the_connection(hall: Hall) -> None:
    hall.root.cold = True
    client = hall.client(GET + GET)  # the second is pipelined, so it is served when the first is answered
    hall.root.cold = False
    (job,) = hall.connections.jobs
    hall.connections.jobs.clear()
    job.run()
    hall.connections._sites = cast("Handler", None)
    with pytest.raises(AttributeError):
        job.then()
    assert statuses(client) == [200]
    assert is_closed(client)
    assert not hall.connections.table


@pytest.fixture
def told(site: Path, tmp_path: Path) -> Iterator[Hall]:
    """A site that tells its errors by pages of its own."""
    (site / "404.html").write_bytes(b"our own 404")
    (site / "405.html").write_bytes(b"our own 405" * 10_000)
    made = Hall(site, tmp_path / "log", {404: "/404.html", 405: "/405.html"})
    yield made
    made.close()


@pytest.mark.parametrize("cold", [False, True])
def test_what_is_not_there_and_the_page_for_that_are_one_answer_after_two_jobs(told: Hall, cold: bool) -> None:
    told.root.cold = cold
    client = told.client(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
    jobs = 0
    while told.connections.jobs:
        told.do(told.connections.jobs.popleft())
        jobs += 1
    told.turn()
    assert [(answer.status, answer.content) for answer in answers(client)] == [(404, b"our own 404"), (200, b"small\n")]
    assert not cold or jobs >= 3


@pytest.mark.parametrize("cold", [False, True])
@pytest.mark.parametrize("buffer", [0, 4096])
def test_a_refused_method_with_content_gets_the_page_and_a_close_without_a_reset(
    told: Hall, cold: bool, buffer: int
) -> None:
    """The content is not waited for, so it is still here when the answer is out (RFC 9112 9.6)."""
    told.root.cold = cold
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    client = told.client(head + b"5\r\nhello\r\n", buffer=buffer)
    data = b""
    for _ in range(1000):
        told.turn()
        data += heard(client)
    (answer,) = [Answer(data)]
    assert (answer.status, answer.closes, answer.content, answer.rest) == (405, True, b"our own 405" * 10_000, b"")
    client.sendall(b"0\r\n\r\n" + GET)
    told.turn()
    assert heard(client) == b""


def test_a_file_that_shrinks_while_it_is_sent_closes_the_connection(hall: Hall, site: Path) -> None:
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("pyserver").addHandler(handler)
    try:
        client = hall.client(LARGE + GET, buffer=4096)
        hall.turn()
        os.truncate(site / "large.bin", 100_000)
        data = b""
        while hall.connections.table:
            data += heard(client)
            hall.turn()
        data += heard(client)
    finally:
        logging.getLogger("pyserver").removeHandler(handler)
    assert len(data) < LARGE_BYTES
    assert is_closed(client), "never padded, and never another answer behind it"
    assert any(re.fullmatch(r"/large\.bin became shorter while it was sent, .*", message) for message in messages)


def test_a_root_that_is_missing_is_looked_for_again_before_the_next_second(hall: Hall, site: Path) -> None:
    """A switch that is not atomic: only for its moment what was there is served on."""
    client = hall.client(GET)
    hall.turn()
    assert [answer.content for answer in answers(client)] == [b"small\n"]
    site.rename(site.parent / "away")
    hall.clock.second += 1
    client.sendall(GET)
    hall.turn()
    assert [answer.content for answer in answers(client)] == [b"small\n"]
    hall.wait(0)  # what is done every second
    site.mkdir()
    (site / "small.txt").write_bytes(b"of the next release\n")
    (site / "large.bin").touch()  # the fixture takes it away
    hall.wait(ROOT_MISSED_REST_S / 2)
    client.sendall(GET)
    hall.turn()
    assert [answer.content for answer in answers(client)] == [b"small\n"]
    hall.wait(ROOT_MISSED_REST_S)
    client.sendall(GET)
    hall.turn()
    assert [answer.content for answer in answers(client)] == [b"of the next release\n"]
    assert hall.connections._tidy_at == inf  # and then no more


# -- draining ---------------------------------------------------------------------------------------


def test_a_drain_closes_idle_connections_and_finishes_the_others(hall: Hall) -> None:
    idle, busy, silent = hall.client(GET), hall.client(LARGE, buffer=4096), hall.client()
    hall.turn()
    heard(idle)
    hall.connections.drain(Drain.CLOSE)
    assert is_closed(idle)
    assert not is_closed(busy)
    assert not is_closed(silent), "its request may be under way"
    silent.sendall(GET)
    hall.turn()
    (answer,) = answers(silent)
    assert (answer.status, answer.closes) == (200, True)
    received = b""
    while len(received) < LARGE_BYTES:
        received += heard(busy)
        hall.turn()
    received += heard(busy)
    assert len(Answer(received).content) == LARGE_BYTES
    assert not hall.connections.table


def test_a_request_that_arrived_just_before_the_drain_is_answered(hall: Hall) -> None:
    client = hall.client(GET)
    hall.turn()
    heard(client)
    client.sendall(GET)
    hall.connections.drain(Drain.CLOSE)
    (answer,) = answers(client)
    assert (answer.status, answer.closes) == (200, True)
    assert is_closed(client)


def test_a_silent_client_gets_a_moment_of_grace(hall: Hall) -> None:
    client = hall.client()
    hall.connections.drain(Drain.CLOSE)
    hall.turn()
    assert not is_closed(client)
    hall.wait(DRAIN_GRACE_S + LATE)
    assert is_closed(client)
    assert not hall.connections.table


def test_pipelined_requests_are_answered_until_the_one_that_closes(hall: Hall) -> None:
    hall.connections.drain(Drain.CLOSE)
    client = hall.client(GET + GET)
    hall.turn()
    found = answers(client)
    assert [(answer.status, answer.closes) for answer in found] == [(200, True)]


def test_a_move_leaves_idle_connections_to_others_and_keeps_the_rest_until_they_are_idle(hall: Hall) -> None:
    idle, silent, half, busy = hall.client(GET), hall.client(), hall.client(GET[:9]), hall.client(LARGE, buffer=4096)
    hall.turn()
    heard(idle)
    connections = hall.connections
    connections.drain(Drain.MOVE)
    assert [each.answered for each in connections.holding.to_return()] == [1, 0]
    half.sendall(GET[9:])
    hall.turn()
    (answer,) = answers(half)
    assert (answer.status, answer.closes) == (200, False), "it goes on, with another worker"
    assert len(connections.holding.to_return()) == 3
    while len(connections.holding.returning) < 4:
        heard(busy)
        hall.turn()
    idle.sendall(GET)
    hall.turn()
    assert connections.holding.to_return()[0].socket.recv(100) == GET, "nothing of it was read"
    assert connections.submit(print, print) is False
    for connection in connections.holding.to_return():
        connections.holding.close(connection)
    assert not connections.table
    assert not connections.holding.to_return()
    assert is_closed(silent)


def test_what_has_not_gone_back_is_closed_when_the_service_stops(hall: Hall) -> None:
    client = hall.client(GET)
    hall.turn()
    heard(client)
    hall.connections.drain(Drain.MOVE)
    hall.connections.drain(Drain.CLOSE)
    assert is_closed(client)
    assert not hall.connections.holding.returning


def test_a_connection_that_another_worker_had_has_the_time_of_an_idle_one(hall: Hall) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.setblocking(False)
        hall.connections.adopt(ours.detach(), 0, parked=True)
        hall.wait(LIMITS.head_deadline + LATE)
        theirs.sendall(GET)
        hall.turn()
        assert answers(theirs)[0].status == 200
        assert hall.lines()
    assert LIMITS.head_deadline + LATE < LIMITS.keep_alive, "or this shows nothing"


# -- numbers and the log ----------------------------------------------------------------------------


def test_every_byte_is_counted(hall: Hall) -> None:
    small, large = hall.client(GET), hall.client(LARGE, buffer=4096)
    received = 0
    for _ in range(100_000):
        hall.turn()
        got = len(heard(small)) + len(heard(large))
        if not got:
            break
        received += got
    assert hall.tally.bytes_received == len(GET) + len(LARGE)
    assert hall.tally.bytes_sent == received


def timed(hall: Hall) -> list[int]:
    """How many answers each bucket holds that holds any, shortest first."""
    return [count for count in hall.tally.answer_times._words if count]


def test_answers_that_are_out_at_once_are_timed_with_their_round(hall: Hall) -> None:
    hall.client(GET + GET)
    hall.turn()
    assert hall.tally.apart == 0
    hall.tally.round_ends(50_000)
    assert timed(hall) == [2]


def test_an_answer_that_takes_longer_is_timed_from_its_round_to_its_end(hall: Hall) -> None:
    client = hall.client(LARGE, buffer=4096)
    hall.turn()
    hall.tally.round_ends(50_000)
    assert (hall.tally.requests, timed(hall)) == (1, [])
    hall.connections.table[next(iter(hall.connections.table))].began -= 1000
    received = 0
    while got := len(heard(client)):
        received += got
        hall.turn()
    assert received > LARGE_BYTES
    assert timed(hall) == [1]
    assert hall.tally.answer_time > 1000e9
    hall.tally.round_ends(50_000)
    assert timed(hall) == [1], "once"
    client.sendall(GET)
    hall.turn()
    hall.tally.round_ends(50_000)
    assert timed(hall) == [1, 1], "the next one with its round"


@pytest.mark.parametrize("target", [GET, LARGE])
def test_an_answer_from_the_disk_is_timed_from_its_head(hall: Hall, target: bytes) -> None:
    hall.root.cold = True
    client = hall.client(target)
    (connection,) = hall.connections.table.values()
    hall.root.cold = False
    connection.began -= 1000
    while heard(client) or hall.connections.jobs or connection.phase is not Phase.READING:
        hall.turn()
    hall.tally.round_ends(50_000)
    assert (hall.tally.requests, timed(hall)) == (1, [1])
    assert hall.tally.answer_time > 1000e9


def test_what_has_no_head_or_no_end_is_not_timed(hall: Hall) -> None:
    hall.client(b"nonsense\r\n\r\n")
    cut = hall.client(LARGE, buffer=4096)
    hall.turn()
    cut.close()
    hall.turn()
    hall.tally.round_ends(50_000)
    assert (hall.tally.requests, timed(hall)) == (2, [])


def test_what_the_memo_does_not_know_is_counted(hall: Hall) -> None:
    client = hall.client()
    for misses in (1, 2, 2, 2):  # the first time only the hash is kept
        client.sendall(GET)
        hall.turn()
        assert hall.tally.memo_misses == misses
    hall.client(b"nonsense\r\n\r\n")
    hall.turn()
    assert (hall.tally.memo_misses, hall.tally.requests) == (3, 5)


def test_lines_of_the_log(hall: Hall) -> None:
    client = hall.client(GET + b"HEAD /small.txt HTTP/1.1\r\nHost: x\r\nUser-Agent: me\r\n\r\n" + b"bad\r\n\r\n")
    hall.turn()
    heard(client)
    lines = [re.sub(r"\[.*?\]", "[]", line) for line in hall.lines()]
    assert lines[0] == 'unix: - - [] "GET /small.txt HTTP/1.1" 200 6 "-" "-"'
    assert lines[1] == 'unix: - - [] "HEAD /small.txt HTTP/1.1" 200 0 "-" "me"'
    assert lines[2].startswith('unix: - - [] "bad" 400 ')


def test_an_answer_that_was_cut_off_is_logged_with_what_was_sent(hall: Hall) -> None:
    client = hall.client(LARGE, buffer=4096)
    hall.turn()
    client.close()
    hall.turn()
    (line,) = hall.lines()
    match = re.search(r'" 200 (\d+) "', line)
    assert match is not None
    assert 0 <= int(match[1]) < LARGE_BYTES


def test_status_classes(hall: Hall) -> None:
    client = hall.client(
        GET + b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n" + b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n" + GET[:-2]
        + b"If-None-Match: *\r\n\r\n"
    )  # fmt: skip
    hall.turn()
    assert statuses(client) == [200, 404, 501, 304]
    assert hall.tally.classes == [0, 0, 1, 1, 1, 1]


# -- names ------------------------------------------------------------------------------------------


def test_names_of_peers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert peer_name(accepted) == b"127.0.0.1"
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        port = listener.getsockname()[1]
        for host, name in (("127.0.0.1", b"127.0.0.1"), ("::1", b"::1")):
            with socket.create_connection((host, port)):
                accepted, _ = listener.accept()
                with accepted:
                    assert peer_name(accepted) == name


def test_the_name_of_a_peer_that_is_gone_is_a_dash() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        with accepted:
            assert peer_name(accepted) == b"-"


# tcpi_segs_in of struct tcp_info (linux/tcp.h).
_SEGMENTS_AT = 140


def segments_until_the_end(hall: Hall, head: bytes) -> int:
    """How many segments a client gets from its request on, until it knows that there is no more."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):

        def so_far() -> int:
            told = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SEGMENTS_AT + 4)
            return int(struct.unpack_from("=I", told, _SEGMENTS_AT)[0])

        accepted, _ = listener.accept()
        before = so_far()
        client.sendall(head)
        hall.connections.adopt(accepted.detach(), 0)
        hall.turn()
        client.settimeout(5)
        while client.recv(9999):
            pass
        return so_far() - before


def test_the_known_answer_to_a_new_client_and_the_end_are_one_segment(hall: Hall) -> None:
    hall.connections._origins = (hall.connections._origins[0]._replace(family=socket.AF_INET),)
    for _ in range(4):
        segments = segments_until_the_end(hall, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert segments <= 2, "and perhaps an acknowledgement of the request"


def test_an_answer_does_not_wait_for_the_last_copy_of_its_socket(hall: Hall) -> None:
    """The master has one until it has run on, and the end of a connection is that of the last."""
    hall.connections._origins = (hall.connections._origins[0]._replace(family=socket.AF_INET),)
    last = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    for _ in range(4):
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            socket.create_connection(listener.getsockname()) as client,
        ):
            accepted, _ = listener.accept()
            copy = accepted.dup()
            client.sendall(last)
            hall.connections.adopt(accepted.detach(), 0)
            hall.turn()
            client.setblocking(False)
            assert client.recv(9999).endswith(b"small\n"), "it is here, and not in 200 ms"
            copy.close()
            client.setblocking(True)
            assert client.recv(9999) == b""


def test_a_client_over_tcp_is_answered(hall: Hall) -> None:
    hall.connections._origins = (hall.connections._origins[0]._replace(family=socket.AF_INET),)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        client.sendall(GET)
        hall.connections.adopt(accepted.detach(), 0)
        hall.turn()
        client.settimeout(5)
        assert client.recv(12) == b"HTTP/1.1 200"
        client.close()
        hall.turn()
        assert hall.lines()[0].startswith("127.0.0.1 - - [")


# -- what others see of it ----------------------------------------------------------------------------


# Long enough to be shown, and not for a deadline.
LASTS = 5.0
assert SHOWN_AFTER_S < LASTS < LIMITS.head_deadline


def shown(hall: Hall) -> list[CurrentRequest]:
    """The requests of which the segment tells."""
    words, now = hall.connections.showing.activity._words, time.monotonic_ns()
    return read_requests(words, 0, now, read_threads(words, 0, now, 0, 0))


def test_what_is_answered_at_once_writes_nothing_for_others(hall: Hall) -> None:
    client = hall.client()
    words = hall.connections.showing.activity._words
    asked = (GET, GET + GET, GET.replace(b"small.txt", b"nothing"), GET.replace(b"GET", b"OPTIONS"))
    for request in (*asked, *asked * 3):
        client.sendall(request)
        if request is asked[0]:
            words[:] = memoryview(bytes(len(words) * 8)).cast("Q")  # what comes first may have to be waited for
        hall.turn()
    assert len(answers(client)) == 20
    assert not any(words)


def test_a_request_that_comes_slowly_is_shown_until_it_is_there(hall: Hall) -> None:
    client = hall.client(b"GET /small.txt?" + b"x" * 200)
    assert shown(hall) == [], "not for a moment"
    hall.wait(LASTS)
    (seen,) = shown(hall)
    assert (seen.phase, seen.method, seen.number, seen.status) == ("reading", "GET", 1, 0)
    assert seen.target == "/small.txt?" + "x" * 101 + "..."
    client.sendall(b" HTTP/1.1\r\nHost: x\r\n\r\nGET /second")
    hall.turn()
    assert shown(hall) == []
    hall.wait(LASTS)
    assert [(seen.target, seen.number) for seen in shown(hall)] == [("/second", 2)]
    client.sendall(b" HTTP/1.1\r\nHost: x\r\n\r\n")
    hall.turn()
    assert statuses(client) == [200, 404]
    assert shown(hall) == []


def test_content_that_comes_slowly_is_shown(hall: Hall) -> None:
    client = hall.client(GET.replace(b"Host", b"Content-Length: 3\r\nHost") + b"a")
    hall.wait(LASTS)
    assert [(seen.phase, seen.target) for seen in shown(hall)] == [("content", "/small.txt")]
    client.sendall(b"bc")
    hall.turn()
    assert shown(hall) == []


def test_what_a_follower_works_for_is_shown(hall: Hall) -> None:
    client, job = at_work(hall)
    assert [(seen.phase, seen.target, seen.thread) for seen in shown(hall)] == [("queued", "/small.txt", None)]
    assert job.row == shown(hall)[0].row
    hall.connections.showing.activity.thread_does(3, job.work, job.row)
    assert [(seen.phase, seen.thread) for seen in shown(hall)] == [("working", 3)]
    hall.do(job)
    hall.turn()
    assert statuses(client) == [200]
    assert shown(hall) == []


def test_who_left_while_a_follower_worked_is_neither_shown_nor_timed(hall: Hall) -> None:
    client, job = at_work(hall)
    client.close()
    hall.do(job)
    hall.turn()
    assert shown(hall) == []
    assert (hall.tally.requests, hall.tally.answer_time) == (1, 0), "it was cut short"


def test_an_answer_that_a_client_takes_slowly_is_shown_with_what_is_out(hall: Hall) -> None:
    client = hall.client(LARGE, buffer=8192)
    hall.turn()
    assert shown(hall) == [], "not for a moment"
    hall.wait(LASTS)
    (before,) = shown(hall)
    assert (before.phase, before.target, before.status) == ("sending", "/large.bin", 200)
    assert LARGE_BYTES < before.all_of_it < LARGE_BYTES + 1000
    assert 0 < before.sent < LARGE_BYTES
    taken = len(heard(client, 100_000))
    hall.turn()
    (after,) = shown(hall)
    assert after.sent >= taken > 0
    assert after.sent > before.sent
    assert after.took_s >= before.took_s
    answer = b""
    while shown(hall):
        answer += heard(client)
        hall.turn()
    assert taken + len(answer + heard(client)) == before.all_of_it


@pytest.mark.parametrize("first", [b"GET /half", LARGE])
def test_who_leaves_is_not_shown_any_more(hall: Hall, first: bytes) -> None:
    client, early = hall.client(first, buffer=8192), hall.client(first, buffer=8192)
    hall.turn()
    early.close()
    hall.wait(LASTS)
    assert len(shown(hall)) == 1
    client.close()
    hall.turn()
    assert shown(hall) == []
    assert not hall.connections.showing.soon


def test_who_lingers_is_not_shown_any_more(hall: Hall) -> None:
    hall.client(b"GET /half")
    hall.wait(LIMITS.head_deadline + LATE)
    assert len(hall.connections.table) == 1
    assert shown(hall) == []


def test_the_wait_in_the_queue_is_that_of_the_first_request(hall: Hall) -> None:
    ours, theirs = socket.socketpair()
    hall.opened.append(ours)
    ours.sendall(b"GET /half")
    hall.connections.adopt(theirs.detach(), 0, waited_ns=7_000_000)
    hall.wait(LASTS)
    assert [seen.waited_s for seen in shown(hall)] == [0.007]
    ours.sendall(b" HTTP/1.1\r\nHost: x\r\n\r\nGET /next")
    hall.turn()
    hall.wait(LASTS)
    assert [seen.waited_s for seen in shown(hall)] == [0.0]
