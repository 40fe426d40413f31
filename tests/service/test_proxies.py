"""Behind proxies, real ones too: logs and limits go by the true client, which cannot choose who it is."""

import contextlib
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.service.client import Client, Reset, request
from tests.service.conftest import Serve
from tests.service.harness import wait_until

CLIENT, OTHER = "127.0.0.7", "127.0.0.8"
TRUSTED = '["127.0.0.1"]'
SELDOM: Mapping[str, object] = {"clients.request_rate": 1, "clients.request_burst": 3}
LINE = b"PROXY TCP4 %b 198.51.100.1 4711 80\r\n"


def proxied(protocol: str, **others: object) -> dict[str, object]:
    return {"proxies.trusted": TRUSTED, "proxies.protocol": protocol, **others}


def clients(log: Path) -> list[str]:
    return [line.split(" ")[0] for line in log.read_text().splitlines()]


# -- without a proxy ---------------------------------------------------------------------------------


def test_the_log_names_the_client_of_the_header(serve: Serve, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    server = serve(access_log=log, settings=proxied("proxy"))
    with server.client() as proxy, server.client(source=OTHER) as other:
        proxy.send(LINE % b"192.0.2.7")
        assert proxy.ask("/small.txt").status == 200
        assert other.ask("/small.txt").status == 200
        wait_until(lambda: sorted(clients(log)) == [OTHER, "192.0.2.7"])
        other.send(LINE % b"192.0.2.7" + request("/small.txt"))
        assert other.answer().status == 400
        wait_until(lambda: clients(log)[2:] == [OTHER])


def test_a_proxy_that_sends_no_header_is_told_of(serve: Serve) -> None:
    server = serve(workers=1, settings=proxied("proxy"))
    with server.logs(r"127\.0\.0\.1 sent no PROXY header: it begins with b'GET /"), server.client() as client:
        client.send(request("/small.txt"))
        with contextlib.suppress(Reset):
            assert client.ended()


@pytest.mark.parametrize("protocol", ["proxy", "x-forwarded-for", "forwarded"])
def test_limits_go_by_the_client_over_all_workers(serve: Serve, protocol: str) -> None:
    server = serve(workers=2, settings=proxied(protocol, **SELDOM))

    def statuses(name: str) -> list[int]:
        """Of six connections, which the balancer spreads, one request each."""
        with contextlib.ExitStack() as stack:
            found = []
            for _ in range(6):
                client = stack.enter_context(server.client())
                if protocol == "proxy":
                    client.send(LINE % name.encode())
                field = f"Forwarded: for=6.6.6.6, for={name}" if protocol == "forwarded" else f"X-Forwarded-For: {name}"
                found.append(client.ask("/small.txt", field).status)
            return found

    assert 429 in statuses("192.0.2.7")
    assert statuses("192.0.2.8")[:3] == [200, 200, 200]


def test_a_reload_ends_connections_with_a_header_in_order(serve: Serve) -> None:
    """The new workers did not see whose they are: such a connection says that it ends, or ends between two requests."""
    server = serve(workers=2, settings=proxied("proxy"))
    with server.client() as idle, server.client(source=OTHER) as plain, server.client(within=15) as new:
        for client in (idle, plain):
            if client is idle:
                client.send(LINE % b"192.0.2.7")
            assert client.ask("/small.txt").status == 200
        new.send((LINE % b"192.0.2.7")[:9])
        wait_until(lambda: server.counters()["connections_open"] == 3)
        assert server.reload().returncode == 0
        assert idle.ended()
        assert plain.ask("/small.txt").status == 200
        new.send((LINE % b"192.0.2.7")[9:] + request("/small.txt"))
        answer = new.answer()
        assert answer.status == 200
        assert not answer.persists


def test_a_unix_peer_is_trusted_where_its_listener_is_named(serve: Serve, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with TemporaryDirectory(prefix="pyserver-") as home, socket.socket(socket.AF_UNIX) as unix, listening() as tcp:
        unix.bind(f"{home}/http")
        unix.listen(16)
        serve(
            listeners=[("http", unix), ("http", tcp)],
            access_log=log,
            settings={"proxies.trusted": '["unix:http"]', "proxies.protocol": "x-forwarded-for"},
        )
        for listener in (unix, tcp):
            with Client(listener.getsockname()) as client:
                assert client.ask("/small.txt", "X-Forwarded-For: 192.0.2.7").status == 200
    wait_until(lambda: sorted(clients(log)) == ["127.0.0.1", "192.0.2.7"])


# -- real clients and proxies --------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_sends_a_header_that_we_read(serve: Serve, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    server = serve(access_log=log, settings=proxied("proxy"))
    shown = subprocess.run(
        ["curl", "--silent", "--show-error", "--max-time", "30", "--haproxy-protocol", f"{server.urls[0]}/small.txt"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert shown.stdout == "small\n"
    wait_until(lambda: clients(log) == ["127.0.0.1"])


def listening() -> socket.socket:
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    made.listen(64)
    made.setblocking(False)  # nginx expects that of what it hands to itself
    return made


@contextlib.contextmanager
def running(command: list[str], listener: socket.socket) -> Iterator[None]:
    """A proxy, which has the listener, so that whoever connects early waits."""
    process = subprocess.Popen(command, pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


HAPROXY = """
defaults
    mode {mode}
    {option}
    timeout connect 20s
    timeout client 20s
    timeout server 20s
listen front
    bind fd@{fd}
    server pyserver {host}:{port} {send}
"""


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")
@pytest.mark.parametrize(
    ("protocol", "mode", "option", "send"),
    [
        ("proxy", "tcp", "", "send-proxy"),
        ("proxy", "tcp", "", "send-proxy-v2"),
        ("proxy", "http", "", "send-proxy-v2 proxy-v2-options unique-id,crc32c"),
        ("proxy", "tcp", "", "send-proxy-v2 check inter 50"),
        ("x-forwarded-for", "http", "option forwardfor", ""),
    ],
    ids=["version 1", "version 2", "http and TLVs", "with checks", "x-forwarded-for"],
)
def test_behind_haproxy(serve: Serve, tmp_path: Path, protocol: str, mode: str, option: str, send: str) -> None:
    log, config = tmp_path / "access.log", tmp_path / "haproxy.cfg"
    server = serve(access_log=log, settings=proxied(protocol))
    assert isinstance(server.address, tuple)
    host, port = server.address
    with listening() as listener:
        config.write_text(
            HAPROXY.format(mode=mode, option=option, send=send, fd=listener.fileno(), host=host, port=port)
        )
        with running(["haproxy", "-db", "-q", "-f", str(config)], listener):
            address = listener.getsockname()
            asked(address, CLIENT, OTHER)
    told_apart(log)
    assert server.logged("PROXY header") == []


NGINX = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {front};
        location / {{
            proxy_pass http://{back};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header {field};
        }}
    }}
}}
"""


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
@pytest.mark.parametrize(
    ("protocol", "field"),
    [
        ("x-forwarded-for", "X-Forwarded-For $proxy_add_x_forwarded_for"),
        ("forwarded", 'Forwarded "$http_forwarded, for=$remote_addr"'),
    ],
)
def test_behind_nginx(serve: Serve, tmp_path: Path, protocol: str, field: str) -> None:
    log, config = tmp_path / "access.log", tmp_path / "nginx.conf"
    server = serve(access_log=log, settings=proxied(protocol))
    assert isinstance(server.address, tuple)
    back = f"{server.address[0]}:{server.address[1]}"
    with listening() as listener:  # as nginx hands them to itself at an upgrade
        front = f"127.0.0.1:{listener.getsockname()[1]}"
        config.write_text(NGINX.format(folder=tmp_path, front=front, back=back, field=field))
        inherited = f"NGINX={listener.fileno()};"
        with running(["env", inherited, "nginx", "-p", str(tmp_path), "-c", str(config)], listener):
            asked(listener.getsockname(), CLIENT, OTHER)
    told_apart(log)


def asked(address: tuple[str, int], *sources: str) -> None:
    """Ask from each of these addresses, and pretend to be others, as often as it takes until the proxy has begun."""
    for source in sources:
        with Client(address, source=source, within=60) as client:
            for _ in range(3):
                answer = client.ask("/small.txt", "X-Forwarded-For: 6.6.6.6, 127.0.0.1", 'Forwarded: for="6.6.6.6')
                assert answer.status == 200
                assert answer.content == b"small\n"


def told_apart(log: Path) -> None:
    wait_until(lambda: len(clients(log)) >= 6)
    assert sorted(clients(log)) == [CLIENT] * 3 + [OTHER] * 3  # each worker writes a batch of its own
