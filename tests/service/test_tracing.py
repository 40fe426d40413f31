"""Requests with names, and the access log as JSON: what the client is told and what the log says are the same."""

import json
import re
import signal
from pathlib import Path
from typing import Any

from tests.service.client import request
from tests.service.conftest import Serve
from tests.service.harness import wait_until

TIMING = re.compile(r"(queue;dur=[0-9]+\.[0-9]{3}, )?serve;dur=[0-9]+\.[0-9]{3}")
ALL = {"log.format": "json", "tracing.request_id": "true", "tracing.server_timing": "true"}


def entries(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text("ascii").splitlines()]


def test_a_request_is_called_the_same_everywhere(serve: Serve, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    server = serve(workers=2, access_log=log, settings=ALL)
    names = []
    for _ in range(3):
        with server.client() as client:
            for number, target in enumerate(("/small.txt", "/small.txt", "/missing")):
                answer = client.ask(target, "Authorization: Basic c2VjcmV0", "X-Request-ID: mine")
                names.append(answer.fields["x-request-id"])
                timing = TIMING.fullmatch(answer.fields["server-timing"])
                assert timing
                assert bool(timing[1]) is (number == 0)
            client.send(b"nonsense\r\n\r\n")
            names.append(client.answer().fields["x-request-id"])
    wait_until(lambda: len(entries(log)) == len(names))
    assert len({*names}) == len(names)
    assert {entry["request_id"] for entry in entries(log)} == {*names}
    by_name = {entry["request_id"]: entry for entry in entries(log)}
    first, _, third, fourth = (by_name[name] for name in names[:4])
    assert (first["method"], first["target"], first["status"], first["bytes"]) == ("GET", "/small.txt", 200, 6)
    assert first["client"] == "127.0.0.1"
    assert first["queue_us"] >= 0
    assert first["worker"] in (0, 1)
    assert third["status"] == 404
    assert fourth["request"] == "nonsense"
    assert "c2VjcmV0" not in log.read_text()


def test_a_trusted_proxy_names_them(serve: Serve, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    server = serve(access_log=log, settings={**ALL, "proxies.trusted": '["127.0.0.1"]'})
    with server.client() as proxy, server.client(source="127.0.0.2") as other:
        assert proxy.ask("/small.txt", "X-Request-ID: theirs-1").fields["x-request-id"] == "theirs-1"
        assert other.ask("/small.txt", "X-Request-ID: theirs-1").fields["x-request-id"] != "theirs-1"
    wait_until(lambda: len(entries(log)) == 2)


def test_a_reload_changes_the_form_and_rotation_keeps_it(serve: Serve, site: Path, tmp_path: Path) -> None:
    log, config = tmp_path / "access.log", tmp_path / "pyserver.toml"
    plain = f'[[site]]\nroot = "{site}"\n[log]\naccess = "{log}"\n'
    config.write_text(plain)
    server = serve(config=config)
    with server.client() as client:
        assert "x-request-id" not in client.ask("/small.txt").fields
        wait_until(log.read_text)
        assert log.read_text().startswith("127.0.0.1 - - [")
        config.write_text(plain + 'format = "json"\n[tracing]\nrequest_id = true\n')
        assert server.reload().returncode == 0
        moved = tmp_path / "moved"
        wait_until(lambda: "x-request-id" in client.ask("/small.txt").fields, within=15)
        wait_until(lambda: any(line.startswith("{") for line in log.read_text().splitlines()))
        log.rename(moved)
        server.send_signal(signal.SIGUSR1)
        wait_until(log.exists)
        client.send(request("/small.txt"))
        name = client.answer().fields["x-request-id"]
        wait_until(lambda: name in (log.read_text() + moved.read_text()))
    assert all(json.loads(line)["status"] == 200 for line in log.read_text().splitlines())
