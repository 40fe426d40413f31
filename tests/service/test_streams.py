"""Streams of requests, mostly wrong, against the running server: it answers what the reader alone makes of them.

As tests/corpus/test_oracle.py makes them up. h11 reads the answers; beside each stream a good client, the canary, is
served as ever.
"""

import os
import socket
from pathlib import Path

import h11
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.corpus.replay import Outcome, replay
from tests.corpus.test_oracle import messages
from tests.service.client import Client
from tests.service.conftest import Serve
from tests.service.invariants import kept

from pyserver.limits import RECV_BYTES
from pyserver.worker.connection import _PATIENT

EXAMPLES = int(os.environ.get("PYSERVER_EXAMPLES", "80"))

STREAMS = st.lists(messages(), min_size=1, max_size=4).map(b"".join) | st.lists(
    messages() | st.binary(max_size=40), min_size=1, max_size=3
).map(b"".join)
CUTS = st.lists(st.integers(1, 60), max_size=5)


def answers_to(client: Client, data: bytes, cuts: list[int]) -> bytes:
    """Send all of it in pieces, say that there is no more, and return all that comes back, also before a reset."""
    got = b""
    try:
        for cut in cuts:
            piece, data = data[:cut], data[cut:]
            if piece:
                client.socket.sendall(piece)
        client.socket.sendall(data)
        client.socket.shutdown(socket.SHUT_WR)
        while more := client.socket.recv(65536):
            got += more
    except (ConnectionResetError, BrokenPipeError):
        pass
    return got


def statuses(wire: bytes, methods: list[bytes]) -> list[int]:
    """Return the statuses of the final answers, as h11 reads them; what it does not take for answers is an error."""
    found = []
    for method in methods:
        if not wire:
            break
        reader = h11.Connection(h11.CLIENT)
        reader.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        reader.send(h11.EndOfMessage())
        reader.receive_data(wire)
        while isinstance(event := reader.next_event(), h11.InformationalResponse):
            pass
        assert isinstance(event, h11.Response), (event, wire[:200])
        found.append(event.status_code)
        while isinstance(event := reader.next_event(), h11.Data):
            pass
        assert isinstance(event, h11.EndOfMessage), (event, wire[:200])
        wire = reader.trailing_data[0]
    assert not wire, f"more than was asked for: {wire[:200]!r}"
    return found


def expected(outcome: Outcome, *, continues: bool) -> tuple[list[bytes], int | None]:
    """Return the methods of the requests that are answered, and the status of the last, if the reader tells it.

    A method that we do not take is answered before its content, if that is large or waited for with, and then it ends.
    """
    methods: list[bytes] = []
    for exchange in outcome.exchanges:
        if exchange.method not in _PATIENT and (exchange.chunked or continues or exchange.length > RECV_BYTES):
            return [*methods, exchange.method], None
        if exchange.end is not None:
            methods.append(exchange.method)
    if outcome.status is not None:
        methods.append(b"GET")  # whatever it was
    return methods, outcome.status


def test_any_stream_gets_the_answers_that_it_should(serve: Serve, site: Path) -> None:
    server = serve(workers=1)

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(data=STREAMS, cuts=CUTS)
    @example(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n", [])
    @example(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", [])
    @example(b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", [50])
    def play(data: bytes, cuts: list[int]) -> None:
        outcome = replay([data])
        methods, last = expected(outcome, continues=b"100-continue" in data.lower())
        with server.client(within=20) as client:
            wire = answers_to(client, data, cuts)
        found = statuses(wire, methods)
        assert len(found) == len(methods), (found, outcome)
        if last is not None:
            assert found[-1] == last
        assert not any(status >= 500 and status not in (501, 505) for status in found)
        assert canary.ask("/small.txt").content == b"small\n"

    with kept(server, site):
        with server.client(within=20) as canary:
            play()
        assert server.counters()["failures"] == 0
    assert server.generations() == {0: 1}
