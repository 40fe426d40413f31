"""Clients that come when they come are counted by how they fared, and drawn."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from benchmarks.curve import draw
from benchmarks.openloop import Fared, offer, quantile, saturate
from benchmarks.overload import Curve, Point, point, read, save, table

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(100_000)
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
RUDE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
LOST = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno"
SHORT = OK[:5000]
SILENT = b""


class Answering:
    """A server that gives one client after the other the answers of a list."""

    def __init__(self, answers: list[bytes]) -> None:
        self._answers = answers
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.address: tuple[str, int] = self.listener.getsockname()
        self._kept: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                answer = self._answers[number % len(self._answers)]
                number += 1
                with suppress(OSError):
                    client.recv(1000)
                    client.sendall(answer)
                if answer:
                    client.close()
                else:
                    self._kept.append(client)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self.listener.close()
        for client in self._kept:
            client.close()


@pytest.fixture
def fared() -> Iterator[Fared]:
    server = Answering([OK, BUSY, RUDE, LOST, SHORT, SILENT])
    yield offer(server.address, b"GET / HTTP/1.1\r\n\r\n", 60, 1.0, patience=5.0)
    server.close()


def test_each_client_is_counted_by_how_it_fared(fared: Fared) -> None:
    assert fared.offered == 60
    assert [len(fared.good), len(fared.refused), fared.without_retry_after] == [10, 20, 10]
    assert [fared.wrong, fared.cut, fared.left] == [10, 10, 10]
    assert fared.goodput == 10
    got = point(2.0, 30.0, fared)
    assert (got.share, got.offered, got.goodput) == (2.0, 60, 10)
    assert [round(share, 3) for share in (got.refused, got.left, got.cut)] == [0.333, 0.167, 0.333]


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    fared = offer(address, b"GET / HTTP/1.1\r\n\r\n", 20, 0.5, patience=5.0)
    assert (fared.offered, fared.cut) == (10, 10)


def test_what_a_server_can_do() -> None:
    server = Answering([OK])
    assert saturate(server.address, b"GET / HTTP/1.1\r\n\r\n", 3, 0.3) > 3
    server.close()


def test_quantiles() -> None:
    assert quantile([], 0.5) is None
    assert [quantile([3.0, 1.0, 2.0, 4.0], share) for share in (0.0, 0.5, 0.99, 1.0)] == [1.0, 3.0, 4.0, 4.0]


CURVES = [
    Curve(
        "ours",
        "1 KiB",
        [Point(1.0, 100, 100, 98, 0, 0, 0, 5, 9, None, 1), Point(4.0, 100, 400, 80, 0.7, 0, 0, 50, 90, 60, 1)],
    ),
    Curve(
        "other<",
        "1 KiB",
        [Point(1.0, 50, 50, 50, 0, 0, 0, 5, 9, None, 1), Point(4.0, 50, 200, 0, 0, 1, 0, None, None, None, 1)],
    ),
    Curve("ours", "2 KiB", [Point(1.0, 100, 100, 98, 0, 0, 0, 5, 9, None, 1)]),
]


def test_the_table_says_what_was_measured() -> None:
    rows = table(CURVES)
    assert rows[1] == ["ours", "1 KiB", "1 x 100/s", "98%", "0%", "0%", "0%", "5 ms", "9 ms", "-"]
    assert rows[3] == ["other<", "1 KiB", "1 x 50/s", "100%", "0%", "0%", "0%", "5 ms", "9 ms", "-"]
    assert rows[4] == ["other<", "1 KiB", "4 x 50/s", "0%", "0%", "100%", "0%", "-", "-", "-"]


def test_the_table_says_where_its_own_clients_were_late() -> None:
    points = [Point(1.0, 100, 100, 98, 0, 0, 0, 5, 9, None, late) for late in (50, 51)]
    assert [row[2] for row in table([Curve("ours", "1 KiB", points)])[1:]] == [
        "1 x 100/s",
        "1 x 100/s (clients up to 51 ms late)",
    ]


def test_curves_are_kept_in_a_file(tmp_path: Path) -> None:
    save(CURVES, tmp_path / "file")
    assert read(tmp_path / "file") == CURVES


def test_the_picture_is_one() -> None:
    picture = ET.fromstring(draw(CURVES, "a machine", "a <way>"))
    assert "pyserver, 1 KiB: 80% of what it can serve, at 4 times" in picture.attrib["aria-label"]
    lines = [one for one in picture if one.tag.endswith("polyline")]
    assert [len(one.attrib["points"].split()) for one in lines] == [2, 2, 1, 2, 1, 1]
    assert [one.attrib["class"] for one in lines] == 2 * ["ours", "other", "ours second"]
    texts = [one for one in picture if one.tag.endswith("text")]
    assert {"pyserver, 1 KiB", "pyserver, 2 KiB", "other<, 1 KiB", "a machine", "a <way>"} <= {
        one.text for one in texts
    }
    places = [(one.attrib["x"], one.attrib["y"]) for one in texts]
    assert len(places) == len(set(places)), "no name on another"
