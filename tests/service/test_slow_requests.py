"""`log.slow`: which requests took long, and where their time went."""

import time
from pathlib import Path

from tests.service.client import request
from tests.service.conftest import Serve


def test_slow_requests_are_told_with_where_their_time_went(serve: Serve, site: Path, large: bytes) -> None:
    (site / "large.bin").write_bytes(large)
    server = serve(workers=1, settings={"log.slow": 1})
    told = r"127\.0\.0\.1 GET /%s HTTP/1\.1: status %d after [0-9.]+ s, most of it %s \(queue 0\.\d+, reading "
    with server.client(receive_buffer=4096, within=20) as slow, server.client(within=20) as half:
        slow.send(request("/large.bin"))
        half.send(request("/small.txt")[:20])
        time.sleep(2.5)
        with server.logs(told % ("small.txt", 200, "reading"), within=20):
            half.send(request("/small.txt")[20:])
            assert half.answer().status == 200
        with server.logs(told % ("large.bin", 200, "sending"), within=20):
            assert slow.answer().content == large


def test_off_nothing_is_told(serve: Serve) -> None:
    server = serve(workers=1)
    with server.client() as half:
        half.send(b"GET / HTTP/1.1\r\n")
        time.sleep(0.3)
        half.send(b"Host: a\r\n\r\n")
        assert half.answer().status == 200
    assert not server.logged("most of it")
