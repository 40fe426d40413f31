"""Listeners that it binds by itself: where, for whom, and what it says when it cannot."""

import os
import socket
from pathlib import Path

import pytest
from tests.service.client import Refused, ask
from tests.service.conftest import Serve
from tests.service.harness import Server, parse_url


def refusal(server: Server) -> str:
    """Return the one line with which it ended."""
    server.expected_status = 1
    assert server.wait() == 1
    server.finish()
    assert len(server.log) == 1, server.log
    return server.log[0]


def test_binds_several_and_tells_the_real_ports(serve: Serve, folder: Path) -> None:
    server = serve(bind=["127.0.0.1:0", "[::1]:0", f"unix:{folder}/s", "127.0.0.1:0"])
    addresses = [parse_url(url) for url in server.urls]
    assert len(set(addresses)) == 4
    assert all(isinstance(address, str) or address[1] > 0 for address in addresses)
    for address in addresses:
        assert ask(address, "/small.txt").content == b"small\n"


def test_ipv4_and_ipv6_on_the_same_port(serve: Serve) -> None:
    first = serve(bind=["0.0.0.0:0"])
    port = parse_url(first.urls[0])[1]
    second = serve(bind=[f"[::]:{port}"])
    assert ask(("127.0.0.1", int(port))).status == 200
    assert ask(("::1", int(port))).status == 200
    assert second.counters()["connections"] <= 1


def test_socket_file_is_made_and_removed(serve: Serve, folder: Path) -> None:
    path = folder / "s"
    server = serve(bind=[f"unix:{path}"])
    assert path.is_socket()
    assert ask(str(path)).status == 200
    assert server.stop() == 0
    assert not path.exists()


def test_dead_socket_file_is_replaced(serve: Serve, folder: Path) -> None:
    path = folder / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    serve(bind=[f"unix:{path}"])
    assert ask(str(path)).status == 200


def test_socket_file_of_a_living_server_is_left_alone(serve: Serve, launch: Serve, folder: Path) -> None:
    path = folder / "s"
    serve(bind=[f"unix:{path}"])
    line = refusal(launch(bind=[f"unix:{path}"]))
    assert f"cannot listen on unix:{path}: Address already in use" in line
    assert ask(str(path)).status == 200


def test_file_that_is_no_socket_is_left_alone(launch: Serve, folder: Path) -> None:
    path = folder / "s"
    path.write_text("precious")
    assert "cannot listen on" in refusal(launch(bind=[f"unix:{path}"]))
    assert path.read_text() == "precious"


def test_address_in_use(serve: Serve, launch: Serve) -> None:
    server = serve()
    port = parse_url(server.urls[0])[1]
    line = refusal(launch(bind=[f"127.0.0.1:{port}"]))
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use; another program listens there" in line


def test_none_of_several_is_kept_when_one_fails(serve: Serve, launch: Serve, folder: Path) -> None:
    port = parse_url(serve().urls[0])[1]
    refusal(launch(bind=[f"unix:{folder}/s", f"127.0.0.1:{port}"]))
    assert not (folder / "s").exists()


def test_port_is_free_at_once_after_a_stop(serve: Serve) -> None:
    """Connections in TIME_WAIT do not hold it (SO_REUSEADDR)."""
    first = serve()
    port = parse_url(first.urls[0])[1]
    assert first.ask("/", "Connection: close").status == 200
    assert first.stop() == 0
    with pytest.raises(Refused):
        ask(("127.0.0.1", int(port)))
    second = serve(bind=[f"127.0.0.1:{port}"])
    assert second.ask().status == 200


def test_missing_folder_of_a_socket_file(launch: Serve, folder: Path) -> None:
    assert "the folder of the socket does not exist" in refusal(launch(bind=[f"unix:{folder}/none/s"]))


def test_process_titles(serve: Serve) -> None:
    """`ps` tells which process is which."""
    server = serve(workers=2)
    titles = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0") for pid in server.workers().values()}
    assert Path(f"/proc/{server.pid}/cmdline").read_bytes().rstrip(b"\0") == b"pyserver: master"
    assert sorted(titles.values()) == [b"pyserver: worker 0", b"pyserver: worker 1"]
    assert all(Path(f"/proc/{pid}").stat().st_uid == os.geteuid() for pid in titles)
