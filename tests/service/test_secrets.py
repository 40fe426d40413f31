"""What a client says in confidence is in no log and no status, however badly it is said, whatever becomes of it."""

import base64
from pathlib import Path

from tests.service.client import Failure
from tests.service.conftest import Serve
from tests.service.harness import wait_until

SECRET = b"c2VjcmV0" + base64.b64encode(b"hunter2!")
FIELDS = (
    b"Authorization: Basic " + SECRET,
    b"Proxy-Authorization: Bearer " + SECRET,
    b"Cookie: session=" + SECRET,
    b"X-Api-Key: " + SECRET,
    b"Cookie2: " + SECRET,
)

HEADS = {
    "good": b"GET /small.txt HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n",
    "nothing there": b"GET /nothing HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n",
    "no such method": b"BREW / HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\n%b\r\n\r\n",
    "LF alone": b"GET / HTTP/1.1\nHost: a\n%b\n\n",
    "CR alone": b"GET / HTTP/1.1\rHost: a\r%b\r\r\n\r\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n%b\r\n\r\n",
    "folded": b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n %b\r\n\r\n",
    "a control byte": b"GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n%b\r\n\r\n",
    "another version": b"GET / HTTP/9.9\r\nHost: a\r\n%b\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n%b\r\n\r\n",
    "bad chunks": b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n%b\r\n\r\nx\r\n",
    "content": b"GET /small.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 200\r\n\r\n" + b"%b".ljust(100),
    "too long": b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\nX: " + b"y" * 40_000 + b"\r\n\r\n",
    "too many": b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    "never ended": b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\nX: ",
}


def test_secrets_of_clients_are_nowhere(serve: Serve, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    settings = {"limits.head_deadline": 1, "limits.body_deadline": 1, "clients.request_rate": 1000}
    server = serve(workers=1, access_log=log, settings=settings)
    for head in HEADS.values():
        for field in FIELDS:
            with server.client(within=15) as client:
                client.send(head.replace(b"%b", field))
                if head in (HEADS["never ended"], HEADS["content"]):
                    continue  # and it leaves
                try:
                    client.answer()
                except Failure as error:
                    raise AssertionError(head) from error
    with server.client(within=15) as client:  # one that is waited for in vain
        client.send(HEADS["never ended"].replace(b"%b", FIELDS[0]))
        assert client.answer().status == 408
    text = server.status().stdout + server.status("--json").stdout
    wait_until(lambda: log.read_bytes().count(b"\n") >= len(FIELDS) * (len(HEADS) - 2) + 1, within=15)
    assert server.stop() == 0
    for where in (log.read_bytes(), "\n".join(server.log).encode(), text.encode()):
        assert SECRET not in where
        assert SECRET[:8] not in where
    assert b"GET /small.txt HTTP/1.1" in log.read_bytes(), "what was asked for is there"
