"""Clients that come when they come, however busy the server is, and leave when they have waited long enough.

Owns:    their connections, a new one for each request, for the time of a call.
Never:   waits for one answer before it sends the next request: a server that is late gets no fewer clients for it, and
         each is timed from when it was to come (so that "coordinated omission" hides nothing).
Fails:   never for what a server does; every way in which a client can fare is counted.
Used by: benchmarks.overload; tests/service/test_overload.py.
"""

import errno
import select
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from itertools import count
from typing import Final

_HEAD_BYTES: Final = 4096
_PART_BYTES: Final = 1 << 20
_WORTH_BYTES: Final = 128 * 1024  # nobody wakes up for less, unless it is all: small parts would take all our time
_SEGMENT_BYTES: Final = 1460
_AT_ONCE: Final = 64  # clients that are late are made up for in such groups, between which answers are read
_SOURCES: Final = 200  # addresses of loopback, each with ports of its own


@dataclass(slots=True)
class Fared:
    """What became of the clients that were to come in the time that counts."""

    offered: int = 0
    seconds: float = 0.0
    good: list[float] = field(default_factory=list)  # seconds until the end of a right answer
    refused: list[float] = field(default_factory=list)  # seconds until the end of a 503
    without_retry_after: int = 0  # of these
    left: int = 0  # with nothing, when their patience was at its end
    cut: int = 0  # reset, or ended before the end of an answer
    wrong: int = 0  # answers that are neither 200 nor 503
    late: float = 0.0  # seconds by which we were late ourselves, at most

    @property
    def goodput(self) -> float:
        """Right answers a second."""
        return len(self.good) / self.seconds

    def quantile(self, share: float) -> float | None:
        """Return the seconds that so many of the good answers took at most; None without any."""
        return quantile(self.good, share)


def quantile(durations: list[float], share: float) -> float | None:
    """Return the duration below which this share of them is; None without any."""
    ordered = sorted(durations)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None


class _Client:
    __slots__ = ("head", "leaves_at", "left", "socket", "status", "was_to_come")

    def __init__(self, connection: socket.socket, was_to_come: float, leaves_at: float) -> None:
        self.socket = connection
        self.was_to_come = was_to_come
        self.leaves_at = leaves_at
        self.head = b""
        self.status = 0
        self.left = 0  # bytes of content still to come


class _Crowd:
    """All clients of a call."""

    def __init__(self, address: tuple[str, int], request: bytes, patience: float) -> None:
        self._address, self._request, self._patience = address, request, patience
        self._poll = select.epoll()
        self._here: dict[int, _Client] = {}
        self._impatient: deque[_Client] = deque()
        self._numbers = count()
        self._sink = bytearray(_PART_BYTES)
        self.fared = Fared()
        self.counts_from, self.counts_until = 0.0, 0.0
        self.over = 0  # clients that are done, however they fared

    def close(self) -> None:
        for client in self._here.values():
            client.socket.close()
        self._poll.close()

    def __len__(self) -> int:
        return len(self._here)

    def come(self, was_to_come: float) -> None:
        """Let a client come, which asks at once."""
        connection = socket.socket()
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, _WORTH_BYTES)
        # As over Ethernet. Where the backlog is full, the kernel forgets that loopback can do more (SYN cookies), and
        # answers then would cost the server several times as much.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT_BYTES)
        # On loopback every address of 127.0.0.0/8 is ours.
        connection.setsockopt(socket.IPPROTO_IP, socket.IP_BIND_ADDRESS_NO_PORT, 1)
        connection.bind((f"127.0.1.{1 + next(self._numbers) % _SOURCES}", 0))
        client = _Client(connection, was_to_come, was_to_come + self._patience)
        if self._counts(client):
            self.fared.offered += 1
            self.fared.late = max(self.fared.late, time.monotonic() - was_to_come)
        self._here[connection.fileno()] = client
        self._impatient.append(client)
        if connection.connect_ex(self._address) not in (0, errno.EINPROGRESS):
            self._is_cut(client)
            return
        try:
            connection.send(self._request)
        except BlockingIOError:  # there was no room for it in the backlog
            self._poll.register(connection, select.EPOLLOUT)
        except OSError:
            self._is_cut(client)
        else:
            self._poll.register(connection, select.EPOLLIN)

    def turn(self, until: float) -> None:
        """See to whom something happened, and let those leave that have waited long enough."""
        if self._impatient:
            until = min(until, self._impatient[0].leaves_at)
        for descriptor, events in self._poll.poll(max(0.0, until - time.monotonic())):
            client = self._here[descriptor]
            try:
                if events & select.EPOLLOUT:
                    client.socket.send(self._request)
                    self._poll.modify(descriptor, select.EPOLLIN)
                else:
                    self._receive(client)
            except OSError:
                self._is_cut(client)
        now = time.monotonic()
        while self._impatient and self._impatient[0].leaves_at <= now:
            client = self._impatient.popleft()
            if self._here.get(client.socket.fileno()) is client:
                self._go(client)
                self.fared.left += self._counts(client)

    def _receive(self, client: _Client) -> None:
        if client.status:
            got = client.socket.recv_into(self._sink, min(client.left, _PART_BYTES), socket.MSG_TRUNC)  # unread
            client.left -= got
        else:
            part = client.socket.recv(_HEAD_BYTES)
            got = len(part)
            client.head += part
            head, end, content = client.head.partition(b"\r\n\r\n")
            if end:
                client.status = int(head[9:12])
                client.left = _length(head) - len(content)
        if client.status and not client.left:
            self._answered(client)
        elif not got:
            self._is_cut(client)

    def _answered(self, client: _Client) -> None:
        self._go(client)
        if not self._counts(client):
            return
        fared, took = self.fared, time.monotonic() - client.was_to_come
        if client.status == 200:
            fared.good.append(took)
        elif client.status == 503:
            fared.refused.append(took)
            fared.without_retry_after += b"\r\nretry-after: " not in client.head.lower()
        else:
            fared.wrong += 1

    def _is_cut(self, client: _Client) -> None:
        self._go(client)
        self.fared.cut += self._counts(client)

    def _go(self, client: _Client) -> None:
        del self._here[client.socket.fileno()]
        client.socket.close()
        self.over += 1

    def _counts(self, client: _Client) -> bool:
        return self.counts_from <= client.was_to_come < self.counts_until


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def offer(
    address: tuple[str, int], request: bytes, rate: float, seconds: float, *, patience: float, warm_up: float = 0.0
) -> Fared:
    """Let so many clients a second come, evenly, for so long; those of the warm-up before that do not count."""
    crowd = _Crowd(address, request, patience)
    try:
        begins = time.monotonic()
        crowd.counts_from, crowd.counts_until = begins + warm_up, begins + warm_up + seconds
        crowd.fared.seconds = seconds
        number, total = 0, int(rate * (warm_up + seconds))
        while number < total or len(crowd):
            now = time.monotonic()
            for _ in range(_AT_ONCE):
                due = begins + number / rate
                if number == total or due > now:
                    break
                crowd.come(due)
                number += 1
            if number < total or len(crowd):
                crowd.turn(begins + number / rate if number < total else now + patience)
        return crowd.fared
    finally:
        crowd.close()


def saturate(address: tuple[str, int], request: bytes, clients: int, seconds: float) -> float:
    """Return the answers a second while so many clients, no more, are always there: what the server can do."""
    crowd = _Crowd(address, request, 60.0)
    try:
        begins = time.monotonic()
        crowd.counts_until = begins + seconds
        while (now := time.monotonic()) < begins + seconds:
            while len(crowd) < clients:
                crowd.come(now)
            crowd.turn(begins + seconds)
        took = time.monotonic() - begins
        return len(crowd.fared.good) / took
    finally:
        crowd.close()
