"""One connection, many requests: how a real client may speak, and what must not confuse the next answer."""

import pytest
from tests.service.client import Client, request
from tests.service.conftest import Serve
from tests.service.harness import Server

INDEX = b"<!doctype html><title>here</title>\n"


@pytest.fixture
def server(serve: Serve) -> Server:
    return serve()


def test_keeps_alive(server: Server) -> None:
    with server.client() as client:
        for _ in range(5):
            answer = client.ask()
            assert (answer.status, answer.content, answer.persists) == (200, INDEX, True)
        assert client.ask("/nothing").status == 404
        assert client.ask().content == INDEX


def test_closes_when_asked(server: Server) -> None:
    with server.client() as client:
        answer = client.ask("/", "Connection: close")
        assert (answer.status, answer.fields["connection"]) == (200, "close")
        assert client.ended()


def test_pipelines_a_hundred_requests_in_one_send(server: Server) -> None:
    targets = ["/", "/small.txt", "/nothing", "/middling.bin"]
    expected = {"/": (200, 35), "/small.txt": (200, 6), "/nothing": (404, None), "/middling.bin": (200, 102400)}
    with server.client(within=15) as client:
        client.send(b"".join(request(targets[n % 4], method="HEAD" if n % 5 == 0 else "GET") for n in range(100)))
        for n in range(100):
            method = "HEAD" if n % 5 == 0 else "GET"
            answer = client.answer(method)
            status, length = expected[targets[n % 4]]
            assert answer.status == status, n
            assert length is None or int(answer.fields["content-length"]) == length, n
            assert len(answer.content) == (0 if method == "HEAD" else int(answer.fields["content-length"]))
        assert client.ask().content == INDEX


@pytest.mark.parametrize(
    ("field", "persists"),
    [("", False), ("Connection: keep-alive\r\n", True), ("Connection: close\r\n", False)],
)
def test_http_1_0(server: Server, field: str, persists: bool) -> None:
    """RFC 9112 9.3: a connection of HTTP/1.0 persists only if the client asks for it."""
    with server.client() as client:
        client.send(f"GET / HTTP/1.0\r\n{field}\r\n".encode())
        answer = client.answer()
        assert (answer.status, answer.content) == (200, INDEX)
        assert ("keep-alive" in answer.fields.get("connection", "")) is persists
        if persists:
            assert client.ask().status == 200
        else:
            assert client.ended()


def test_continue_is_said_before_the_content_comes(server: Server) -> None:
    """RFC 9110 10.1.1."""
    with server.client() as client:
        client.send(request("/", "Expect: 100-continue", "Content-Length: 5"))
        assert client.receive().startswith(b"HTTP/1.1 100 ")
        client.send(b"hello")
        assert client.answer().content == INDEX
        assert client.ask().content == INDEX


def test_no_continue_when_the_answer_is_final_anyway(server: Server) -> None:
    with server.client() as client:
        client.send(request("/", "Expect: 100-continue", "Content-Length: 5", method="POST"))
        answer = client.answer("POST")
        assert (answer.status, answer.interim) == (405, ())
        assert not answer.persists
        assert client.ended()


def test_post_is_refused_and_the_next_request_answered(server: Server) -> None:
    with server.client() as client:
        client.send(request("/", "Content-Length: 11", method="POST") + b"GET /small H" + request())
        answer = client.answer("POST")
        assert (answer.status, answer.persists) == (405, True)
        assert set(answer.fields["allow"].replace(" ", "").split(",")) >= {"GET", "HEAD"}
        # Eleven bytes were content; with the twelfth begins a request of an unknown method, HGET.
        assert client.answer().status == 501
    with server.client() as client:
        client.send(request("/", "Content-Length: 11", method="POST") + b"GET /small " + request())
        assert client.answer("POST").status == 405
        assert client.answer().content == INDEX


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_chunked_content_is_not_the_next_request(server: Server, method: str) -> None:
    """RFC 9112 7.1: what looks like a request inside the content is content."""
    chunked = b"5\r\nGET /\r\n6;a=b\r\n HTTP/\r\n0\r\nTrailer: x\r\n\r\n"
    with server.client() as client:
        client.send(request("/", "Transfer-Encoding: chunked", method=method) + chunked + request("/small.txt"))
        answer = client.answer(method)
        assert answer.status == (200 if method == "GET" else 405)
        if answer.persists:
            assert client.answer().content == b"small\n"
            assert client.ask().content == INDEX
        else:
            assert client.ended()


@pytest.mark.parametrize("size", [200_000, 3_000_000])
def test_large_post_gets_its_whole_answer_and_no_reset(server: Server, size: int) -> None:
    """T-44: a close with unread bytes would reset the answer away."""
    with server.client() as client:
        client.send(request("/", f"Content-Length: {size}", method="POST"))
        sent = 0
        answer = None
        while sent < size and answer is None:
            client.send(b"x" * 10_000)
            sent += 10_000
            if sent == 100_000:
                answer = client.answer("POST")
        assert answer is not None
        assert answer.status in (405, 413)
        assert not answer.persists
        assert client.ended()


def test_head_of_everything_has_no_content(server: Server) -> None:
    with server.client() as client:
        for target in ("/", "/nothing", "/middling.bin", "/small.txt"):
            answer = client.ask(target, method="HEAD")
            assert int(answer.fields["content-length"]) > 0
        assert client.ask().content == INDEX


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # RFC 9112 3.2: no Host
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS client\r\n\r\n", 400),
    ],
    ids=["no-host", "version", "long-target", "many-fields", "smuggling", "tls"],
)
def test_what_is_no_request_is_refused_and_ends_the_connection(server: Server, sent: bytes, status: int) -> None:
    with server.client() as client:
        client.send(sent + request())
        answer = client.answer()
        assert (answer.status, answer.persists) == (status, False)
        assert client.ended()


def test_byte_by_byte(server: Server) -> None:
    with server.client() as client:
        for byte in request() + request("/small.txt"):
            client.send(bytes([byte]))
        assert client.answer().content == INDEX
        assert client.answer().content == b"small\n"


def test_two_clients_of_one_server_do_not_mix(server: Server) -> None:
    with server.client() as one, server.client() as other:
        one.send(b"GET /small.txt HTTP/1.1\r\n")
        assert other.ask().content == INDEX
        one.send(b"Host: localhost\r\n\r\n")
        assert one.answer().content == b"small\n"


def test_half_closed_client_is_answered(server: Server) -> None:
    """A client may end its own direction after its request, as `nc -N` does."""
    with Client(server.address) as client:
        client.send(request("/middling.bin", "Connection: close"))
        client.socket.shutdown(1)
        assert len(client.answer().content) == 102400
