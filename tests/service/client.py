"""Clients with a deadline for everything: what a server did to them has a name.

    Refused    nobody listens            Reset      cut off, what was under way is lost
    Truncated  ended before its length   Slow       nothing within the deadline

As a program it is a load of clients until standard input ends (see harness.Load, and tests.systemd.service.clients).
"""

import contextlib
import hashlib
import json
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeAlias

# A wait that is worth its moment in the report.
STALL_S = 0.02

# In place of a digest: there is nothing, and the answer says so.
NOTHING = "404"

Address: TypeAlias = tuple[str, int] | str  # host and port, or the path of a UNIX socket


class Failure(Exception):
    """A client did not get what it came for."""


class Refused(Failure):
    """Nobody listens there."""


class Reset(Failure):
    """The connection was cut."""


class Truncated(Failure):
    """The connection ended before the answer did."""


class Slow(Failure):
    """Nothing happened within the deadline."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One response, read by its framing."""

    status: int
    minor: int
    fields: Mapping[str, str]  # lower-case names
    content: bytes
    interim: tuple[int, ...] = field(default=())  # 1xx that came before it

    @property
    def persists(self) -> bool:
        """Whether the server says that the connection goes on (RFC 9112 9.3)."""
        options = self.fields.get("connection", "").lower()
        return "close" not in options and (self.minor >= 1 or "keep-alive" in options)


class Client:
    """One connection."""

    def __init__(self, address: Address, *, within: float = 5.0, receive_buffer: int = 0, source: str = "") -> None:
        self.within = within
        self.received = b""  # and not yet part of an answer
        family = (
            socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        )
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(within)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            if source:  # its own address: on loopback any of 127.0.0.0/8
                self.socket.bind((source, 0))
            with self._told():
                self.socket.connect(address)
        except Failure:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send all of it."""
        with self._told():
            self.socket.sendall(data)

    def ask(self, target: str = "/", *fields: str, method: str = "GET", host: str = "localhost") -> Answer:
        """Send a request and return its answer."""
        self.send(request(target, *fields, method=method, host=host))
        return self.answer(method)

    def answer(self, method: str = "GET") -> Answer:
        """Read one answer, with the interim ones before it; `method` is what it answers."""
        interim = []
        while True:
            status, minor, fields = self._head()
            if status >= 200:
                break
            interim.append(status)
        return Answer(status, minor, fields, self._content(status, fields, method), tuple(interim))

    def receive(self, most: int = 65536) -> bytes:
        """Receive what is there; b"" is the end."""
        with self._told():
            return self.socket.recv(most)

    def rest(self) -> bytes:
        """Return everything up to an orderly end."""
        got = self.received
        self.received = b""
        while data := self.receive():
            got += data
        return got

    def ended(self) -> bool:
        """Wait for the end of the connection; true if it was orderly and nothing else came."""
        return self.rest() == b""

    def _head(self) -> tuple[int, int, dict[str, str]]:
        while b"\r\n\r\n" not in self.received:
            self._more()
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        version, status = line.split(" ")[:2]
        if version not in ("HTTP/1.0", "HTTP/1.1"):
            raise AssertionError(f"no status line: {line!r}")
        fields = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
        return int(status), int(version[-1]), fields

    def _content(self, status: int, fields: Mapping[str, str], method: str) -> bytes:
        if method == "HEAD" or status in (204, 304):
            return b""
        if "content-length" not in fields:
            return self.rest()
        length = int(fields["content-length"])
        parts, got = [self.received], len(self.received)
        while got < length:
            part = self.receive(262144)
            if not part:
                raise Truncated(f"{got} of {length} bytes")
            parts.append(part)
            got += len(part)
        content = b"".join(parts)
        self.received = content[length:]
        return content[:length]

    def _more(self) -> None:
        data = self.receive()
        if not data:
            raise Truncated(f"the connection ended after {self.received[:80]!r}")
        self.received += data

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (ConnectionRefusedError, FileNotFoundError) as error:
            raise Refused(str(error)) from error
        except (ConnectionResetError, BrokenPipeError, ConnectionAbortedError) as error:
            raise Reset(str(error)) from error
        except TimeoutError as error:
            raise Slow(f"nothing within {self.within} s") from error


def request(target: str = "/", *fields: str, method: str = "GET", host: str = "localhost") -> bytes:
    """Return a request's bytes; `fields` are whole lines without their ends."""
    return "\r\n".join([f"{method} {target} HTTP/1.1", f"Host: {host}", *fields, "", ""]).encode()


def ask(address: Address, target: str = "/", *fields: str, method: str = "GET", within: float = 5.0) -> Answer:
    """Send one request on a connection of its own."""
    with Client(address, within=within) as client:
        return client.ask(target, "Connection: close", *fields, method=method)


# -- load ----------------------------------------------------------------------------------------


class Report:
    """What became of one kind of clients; each thread has its own."""

    def __init__(self, kind: str, stall: float) -> None:
        self.kind = kind
        self._stall = stall
        self.answered = 0
        self.longest = 0.0
        self.stalls: list[tuple[float, float]] = []  # since when, and how long
        self.failures: list[dict[str, Any]] = []

    def waited(self, since: float) -> None:
        took = time.monotonic() - since
        self.longest = max(self.longest, took)
        if took > self._stall:
            self.stalls.append((since, took))

    def failed(self, error: Exception, since: float) -> None:
        self.failures.append(
            {
                "client": self.kind,
                "what": type(error).__name__,
                "text": str(error),
                "since": since,
                "at": time.monotonic(),
            }
        )


class Wrong(Failure):
    """An answer that is none of what was asked for."""


class ServerError(Failure):
    """An answer that says that the server could not (5xx)."""


def _ask_checked(client: Client, target: str, digest: str, *fields: str) -> Answer:
    answer = client.ask(target, *fields)
    if answer.status >= 500:
        raise ServerError(f"{answer.status}")
    if answer.status == 404 and digest == NOTHING:
        return answer
    if answer.status != 200 or hashlib.sha256(answer.content).hexdigest() != digest:
        raise Wrong(f"{answer.status} with {len(answer.content)} bytes")
    return answer


Targets: TypeAlias = list[tuple[str, str]]  # and the digest of what is there, or NOTHING


def _one_shot(address: Address, targets: Targets, rest: float, over: threading.Event, report: Report) -> None:
    turn = 0
    while not over.wait(rest):
        turn += 1
        since = time.monotonic()
        try:
            with Client(address, within=20) as client:
                _ask_checked(client, *targets[turn % len(targets)], "Connection: close")
            report.answered += 1
        except Failure as error:
            report.failed(error, since)
        report.waited(since)


def _keep_alive(address: Address, targets: Targets, rest: float, over: threading.Event, report: Report) -> None:
    turn = 0
    while not over.is_set():
        # The connection may have been cut any time since its last answer was on its way; when that was read tells only
        # when this thread had its turn. So a failure is counted from the request before.
        before = since = time.monotonic()
        try:
            with Client(address, within=20) as client:
                while not over.wait(rest):
                    turn += 1
                    since = time.monotonic()
                    answer = _ask_checked(client, *targets[turn % len(targets)])
                    report.answered += 1
                    report.waited(since)
                    before, since = since, time.monotonic()
                    if not answer.persists:
                        break
        except Failure as error:
            report.failed(error, before)
            over.wait(rest)


class Download:
    """One large answer, taken evenly over some seconds: a fortieth of it, and a rest."""

    PARTS = 40

    def __init__(self, address: Address, target: str, digest: str, seconds: float) -> None:
        self.outcome = "under way"  # then "whole", or the name of what happened
        self.ended_at = 0.0
        self._digest, self._rest = digest, seconds / self.PARTS
        self._client = Client(address, within=20, receive_buffer=65536)
        self._client.send(request(target))
        self._client.received = self._client.receive()  # it has begun
        self._thread = threading.Thread(target=self._take)

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._thread.join()

    def _take(self) -> None:
        try:
            self.outcome = self._taken()
        except Failure as error:
            self.outcome = type(error).__name__
        self.ended_at = time.monotonic()
        self._client.close()

    def _taken(self) -> str:
        status, _, fields = self._client._head()
        length, part = int(fields["content-length"]), self._client.received
        found, got = hashlib.sha256(part), len(part)
        for number in range(1, self.PARTS + 1):
            while got < length * number // self.PARTS:
                part = self._client.receive(min(262144, length - got))
                if not part:
                    raise Truncated(f"{got} of {length} bytes")
                found.update(part)
                got += len(part)
            time.sleep(self._rest)
        return "whole" if status == 200 and found.hexdigest() == self._digest else "Wrong"


def _idle(client: Client, target: str) -> str:
    """Ask once more on a connection that was idle all the time: what became of it?"""
    try:
        answer = client.ask(target)
    except Failure as error:
        return type(error).__name__
    finally:
        client.close()
    return "lives" if answer.status == 200 else str(answer.status)


def main() -> None:
    order = json.loads(sys.argv[1])
    address = order["address"] if isinstance(order["address"], str) else (order["address"][0], order["address"][1])
    targets = list(order["targets"].items())
    over = threading.Event()
    kinds = [(_one_shot, "one-shot")] * order["one_shot"] + [(_keep_alive, "keep-alive")] * order["keep_alive"]
    reports = [Report(kind, order.get("stall", STALL_S)) for _, kind in kinds]
    threads = [
        threading.Thread(target=work, args=(address, targets, order.get("rest", 0.0), over, report))
        for (work, _), report in zip(kinds, reports, strict=True)
    ]
    idle = [Client(address, within=20) for _ in range(order.get("idle", 0))]
    target = targets[0][0]
    for client in idle:
        client.ask(target)
    download = None
    if "download" in order:
        download = Download(address, *order["download"])
        download.begin()
    for thread in threads:
        thread.start()
    if idle or "idle" in order:
        print("begun", flush=True)
    sys.stdin.read()
    over.set()
    for thread in threads:
        thread.join()
    if download is not None:
        download.end()
    document = {
        "answered": {kind: sum(each.answered for each in reports if each.kind == kind) for _, kind in kinds},
        "longest": max((each.longest for each in reports), default=0.0),
        "stalls": [stall for each in reports for stall in each.stalls],
        "idle": Counter(_idle(client, target) for client in idle),
        "download": None if download is None else (download.outcome, download.ended_at),
        "failures": [failure for each in reports for failure in each.failures],
    }
    json.dump(document, sys.stdout)


if __name__ == "__main__":
    main()
