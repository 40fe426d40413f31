import socket
import threading

import pytest
from benchmarks.client import Failed, ask, parse, read_head


def test_the_line_of_our_script_is_read_out_of_what_wrk_prints() -> None:
    run = parse(
        "Running 2s test @ http://127.0.0.1:8080/\n  1 threads and 32 connections\nRequests/sec:  45000.00\n"
        'RESULT {"requests": 90000, "seconds": 2.000100, "bytes": 1170000, "p50_us": 300, "p99_us": 900, '
        '"connect": 0, "read": 2, "write": 0, "timeout": 1, "status": 0}\n'
    )
    assert (run.requests, run.seconds, run.p99_us) == (90000, 2.0001, 900)
    assert run.errors == {"read": 2, "timeout": 1}


def test_a_wrk_that_tells_nothing_has_failed() -> None:
    with pytest.raises(Failed, match="unable to connect"):
        parse("unable to connect to 127.0.0.1:1 Connection refused")


def test_a_head_is_read() -> None:
    assert read_head(b'HTTP/1.1 304 Not Modified\r\nETag: "a:b"\r\nServer: x\r\n\r\n') == (
        304,
        {"etag": '"a:b"', "server": "x"},
    )


@pytest.mark.parametrize(
    ("wire", "status", "content"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello"),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", 200, b"hello"),
    ],
)
def test_one_answer_is_taken_whole(wire: bytes, status: int, content: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_answer_once, args=(listener, wire))
        thread.start()
        answer = ask(listener.getsockname()[1], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        thread.join()
    assert (answer.status, answer.content) == (status, content)
    assert answer.wire_bytes == len(wire)


def test_a_close_without_an_answer_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_answer_once, args=(listener, b""))
        thread.start()
        with pytest.raises(Failed, match="no answer to GET /"):
            ask(listener.getsockname()[1], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        thread.join()


def _answer_once(listener: socket.socket, wire: bytes) -> None:
    connection, _peer = listener.accept()
    with connection:
        while not connection.recv(4096).endswith(b"\r\n\r\n"):
            pass
        connection.sendall(wire + (b"more" if wire else b""))
