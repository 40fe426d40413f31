"""Slow heads, slow content and slow readers, hundreds of each at once: a good client gets all of its answers.

docs/robustness.md has what slowhttptest does with thousands of them.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from tests.service.client import Client, Failure, request
from tests.service.conftest import Serve
from tests.service.harness import Server, descriptors, wait_until

from pyserver.limits import UNSENT_MAX_BYTES

# Of each kind. All of them are descriptors of this process too, whose limit may be 1024.
EACH: Final = 250

# So that none of them has a deadline while it is looked at what they do.
PATIENT: Final = {"limits.head_deadline": 300, "limits.body_deadline": 300, "limits.send_stall": 300}

HEAD: Final = request("/small.txt", "X-Padding: " + "x" * 2000)
CONTENT: Final = request("/small.txt", "Content-Length: 5000")


class Attack:
    """Clients that go on as slowly as they can, in a thread of their own."""

    def __init__(self, server: Server, each: int, stack: contextlib.ExitStack) -> None:
        self.heads = [stack.enter_context(server.client()) for _ in range(each)]
        self.contents = [stack.enter_context(server.client()) for _ in range(each)]
        self.readers = [stack.enter_context(server.client(receive_buffer=4096)) for _ in range(each)]
        firsts = ((self.heads, HEAD[:20]), (self.contents, CONTENT + b"c"), (self.readers, request("/large.bin")))
        for clients, first in firsts:
            for client in clients:
                with contextlib.suppress(Failure):  # its deadline may have come on a machine that stood still
                    client.send(first)
        for client in (*self.heads, *self.contents, *self.readers):
            client.socket.setblocking(False)
        self.drips = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._drip)

    def _drip(self) -> None:
        at = 20
        while not self._over.wait(0.05):
            for client in self.heads:
                self._step(client, HEAD[at : at + 1])
            for client in self.contents:
                self._step(client, b"c")
            for client in self.readers:
                self._step(client, b"")
            at += 1
            self.drips += 1

    @staticmethod
    def _step(client: Client, data: bytes) -> None:
        """Send a byte, or take a few; those that the server has ended do no more."""
        with contextlib.suppress(OSError, Failure):
            if data:
                client.socket.send(data)
            else:
                client.socket.recv(16)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@contextlib.contextmanager
def under_attack(server: Server, each: int) -> Iterator[Attack]:
    with contextlib.ExitStack() as stack, Attack(server, each, stack) as attack:
        yield attack


def test_a_good_client_gets_all_of_its_answers(serve: Serve, downloads: Path) -> None:
    """T-48, T-49, with two workers of eight threads."""
    server = serve(workers=2, threads=8, settings=PATIENT, dev=False)
    took: list[float] = []
    with under_attack(server, EACH) as attack:
        wait_until(lambda: server.counters()["connections_open"] >= 3 * EACH, within=20)
        began = time.monotonic()
        with server.client(within=30) as good:
            while len(took) < 300 or attack.drips < 20:
                since = time.monotonic()
                answer = good.ask("/small.txt") if len(took) % 3 else server.ask("/small.txt", within=30)
                took.append(time.monotonic() - since)
                assert (answer.status, answer.content) == (200, b"small\n")
        held = server.counters()["connections_open"]
        spent = time.monotonic() - began
    took.sort()
    p99 = took[int(len(took) * 0.99)]
    print(f"{len(took)} requests in {spent:.1f} s beside {held} slow clients, p99 {p99 * 1000:.1f} ms")
    assert held >= 3 * EACH, "they were there all the time"
    assert p99 < 5, "a machine that stands still is no fault of ours"
    assert server.counters()["failures"] == 0


def test_those_who_read_nothing_have_the_kernel_take_little(serve: Serve, downloads: Path) -> None:
    """Of 20 MiB each; else it takes megabytes of each, and who asks for little has to wait until all have them."""
    server = serve(workers=1, threads=2, settings=PATIENT, dev=False)
    readers = 20
    with contextlib.ExitStack() as stack:
        for _ in range(readers):
            client = stack.enter_context(server.client(within=30, receive_buffer=4096))
            client.send(request("/large.bin"))
            assert client.socket.recv(1, socket.MSG_PEEK) == b"H"  # it has begun
        # That it takes no more is what a time shows; the buffers are full in some rounds of the worker.
        assert server.ask("/small.txt", within=30).status == 200
        time.sleep(0.5)
        assert server.ask("/small.txt", within=30).status == 200
        taken = server.counters()["bytes_sent"]
    assert taken / readers < 3 * UNSENT_MAX_BYTES
    assert server.counters()["failures"] == 0


def test_each_of_them_ends_by_its_deadline_and_leaves_nothing(serve: Serve, downloads: Path) -> None:
    server = serve(
        workers=2,
        threads=8,
        settings={"limits.head_deadline": 1, "limits.body_deadline": 1, "limits.send_stall": 1},
        dev=False,
    )
    for _ in range(20):
        server.ask("/small.txt")
    server.ask("/large.bin", within=30)
    wait_until(lambda: server.counters()["connections_open"] == 0)
    before = {pid: len(descriptors(pid)) for pid in server.workers().values()}
    with under_attack(server, 60):
        # Those that drip have one deadline for all that they drip; a few bytes are no progress of a reader either.
        wait_until(lambda: server.counters()["deadlines"] >= 180, within=30)
        wait_until(lambda: server.counters()["connections_open"] == 0, within=30)
        assert server.ask("/small.txt").status == 200
    wait_until(lambda: server.counters()["connections_open"] == 0)
    # A worker that had not sent the large file before keeps it open for a while now.
    assert all(len(descriptors(pid)) <= count + 2 for pid, count in before.items())


def test_limits_leave_an_attacker_no_more_than_its_share(serve: Serve, downloads: Path) -> None:
    """One address with as many slow connections as it likes; it has ten, and another address does not notice."""
    server = serve(workers=2, threads=8, settings={**PATIENT, "clients.connections": 10}, dev=False)
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            client = stack.enter_context(server.client(source="127.0.0.2"))
            with contextlib.suppress(Failure):
                client.send(HEAD[:20])
        # Two workers that let somebody in at the same time let in one more than there should be.
        wait_until(lambda: server.counters()["limited_open"] >= 189)
        wait_until(lambda: 10 <= server.counters()["connections_open"] <= 11)
        with server.client(source="127.0.0.3") as good:
            assert [good.ask("/small.txt").status for _ in range(20)] == [200] * 20
