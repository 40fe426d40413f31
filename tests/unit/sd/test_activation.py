"""Descriptors handed over by exec, as systemd does it: numbers from 3, LISTEN_* set in the child itself."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pyserver.sd.activation import VARIABLES, adopt

SERVICE = str(Path(__file__).parents[3] / "service")

# Stands for systemd between fork and exec: moves the descriptors to 3.., says for whom they are, becomes the service.
LAUNCH = """
import json, os, sys
order, variables, program = json.loads(sys.argv[1])
high = [os.dup2(fd, 100 + i) for i, fd in enumerate(order)]
for i, fd in enumerate(high):
    os.dup2(fd, 3 + i, inheritable=True)
for name, value in variables.items():
    os.environ[name] = value.replace("SELF", str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-W", "error", "-c", program])
"""

ADOPT = """
import json, os, sys
from pyserver.sd.activation import ActivationError, VARIABLES, adopt
try:
    got = adopt(os.environ)
    result = [
        [one.name, one.listener.fileno(), int(one.listener.family), one.listener.get_inheritable(),
         os.get_blocking(one.listener.fileno()), str(one.listener.getsockname())]
        for one in got
    ]
    for one in got:
        one.listener.close()
except ActivationError as error:
    result = str(error)
left = [name for name in VARIABLES if name in os.environ]
still = [fd for fd in range(3, 9) if os.path.exists(f"/proc/self/fd/{fd}")]
print(json.dumps([result, left, "systemd" in sys.modules, still]))
"""


def run(
    listeners: list[int], variables: dict[str, str], program: str = ADOPT
) -> tuple[Any, list[str], bool, list[int]]:
    environ = {key: value for key, value in os.environ.items() if key not in VARIABLES} | {"PYTHONPATH": SERVICE}
    ran = subprocess.run(
        [sys.executable, "-c", LAUNCH, json.dumps([listeners, variables, program])],
        pass_fds=listeners,
        env=environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ran.stderr == ""
    result, left, loaded, still = json.loads(ran.stdout)
    return result, left, loaded, still


def for_us(count: int, names: str | None = None) -> dict[str, str]:
    told = {"LISTEN_PID": "SELF", "LISTEN_FDS": str(count)}
    return told if names is None else told | {"LISTEN_FDNAMES": names}


@pytest.fixture
def tcp4() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def tcp6() -> Iterator[socket.socket]:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        yield listener


@pytest.fixture
def unix(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        yield listener


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_tcp_v4_v6_and_unix_in_any_order(
    tcp4: socket.socket, tcp6: socket.socket, unix: socket.socket, order: tuple[int, int, int]
) -> None:
    given = [(tcp4, tcp6, unix)[i] for i in order]
    result, left, _, still = run([one.fileno() for one in given], for_us(3, "http:http:http"))
    assert result == [
        ["http", 3 + i, int(one.family), False, False, str(one.getsockname())] for i, one in enumerate(given)
    ]
    assert left == []
    assert still == []


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(None, id="no names given"),
        pytest.param("unknown", id="the library's word for no name"),
        pytest.param("pyserver.socket", id="the default name is the unit's"),
        pytest.param(r"pyserver@a\:b.socket", id="a colon within a name comes escaped"),
    ],
)
def test_unnamed_is_http(tcp4: socket.socket, names: str | None) -> None:
    result, left, _, _ = run([tcp4.fileno()], for_us(1, names))
    assert [row[0] for row in result] == ["http"]
    assert left == []


STORED = """
import json, os
from pyserver.sd.activation import adopt
stored = []
listeners = adopt(os.environ, stored)
names = [[one.name, os.path.exists(f"/proc/self/fd/{one.descriptor}")] for one in stored]
print(json.dumps([names, [one.name for one in listeners], False, []]))
for one in listeners:
    one.listener.close()
"""


def test_what_an_earlier_start_has_stored_is_no_listener(tcp4: socket.socket) -> None:
    here, there = socket.socketpair()
    with here, there:
        given = [here.fileno(), tcp4.fileno(), there.fileno()]
        names = for_us(3, "parked-http:http:segment")
        found, listeners, _, _ = run(given, names, STORED)
        assert found == [["parked-http", True], ["segment", True]]
        assert listeners == ["http"]
        result, _, _, still = run(given, names)
        assert [row[0] for row in result] == ["http"]
        assert still == [], "closed where nobody wants it"


def test_unknown_name_is_refused_with_what_to_write(tcp4: socket.socket, unix: socket.socket) -> None:
    result, left, _, still = run([tcp4.fileno(), unix.fileno()], for_us(2, "http:https"))
    assert result == (
        "descriptor 4 is named 'https', known names are: http, control, admin;"
        " set FileDescriptorName=http in its .socket unit"
    )
    assert left == []
    assert still == [], "a refusal keeps no descriptor"


def test_a_name_cannot_add_a_line(tcp4: socket.socket) -> None:
    result, _, _, _ = run([tcp4.fileno()], for_us(1, "a\nb"))
    assert r"'a\nb'" in result
    assert "\n" not in result


def test_another_process_is_meant(tcp4: socket.socket) -> None:
    told = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "http"}
    assert run([tcp4.fileno()], told) == ([], [], False, [3])


@pytest.mark.parametrize("told", [{"LISTEN_PID": "SELF"}, {"LISTEN_FDS": "1"}, {"LISTEN_PID": "x", "LISTEN_FDS": "1"}])
def test_half_told_is_not_told(tcp4: socket.socket, told: dict[str, str]) -> None:
    assert run([tcp4.fileno()], told) == ([], [], False, [3])


def test_without_activation_libsystemd_is_not_loaded() -> None:
    environ = {"HOME": "/"}
    assert adopt(environ) == []
    assert environ == {"HOME": "/"}


UNFIT: dict[str, Callable[[], Sequence[Any]]] = {
    "datagram": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
    "sequential-packet": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET),
    "connected": socket.socketpair,
    "pipe": lambda: [os.fdopen(end, "wb", buffering=0) for end in os.pipe()],
    "netlink": lambda: [socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)],
}


@pytest.mark.parametrize(
    ("kind", "found", "instead"),
    [
        ("datagram", "a datagram socket", "write ListenStream="),
        ("sequential-packet", "a sequential-packet socket", "write ListenStream="),
        ("connected", "a stream socket that does not listen", "write ListenStream= and Accept=no"),
        ("pipe", "not a socket", "write ListenStream="),
        ("netlink", "of address family 16", "write ListenStream= with a port, address or path"),
    ],
)
def test_what_is_no_listener_is_refused(tcp4: socket.socket, kind: str, found: str, instead: str) -> None:
    pair = UNFIT[kind]()
    try:
        result, left, _, still = run([tcp4.fileno(), pair[0].fileno()], for_us(2, "http:http"))
    finally:
        for end in pair:
            end.close()
    assert result == (
        f"descriptor 4 ('http') is {found}, must be a listening stream socket; {instead} in its .socket unit"
    )
    assert left == []
    assert still == []


def test_one_client_instead_of_a_listener() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        result, _, _, _ = run([ours.fileno()], for_us(1, "connection"))
    assert result.endswith("is one client and not a listener; write Accept=no in its .socket unit")


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(for_us(1, "http:http"), id="more names than descriptors"),
        pytest.param(for_us(3, "http:http:http"), id="more announced than there"),
        pytest.param({"LISTEN_PID": "SELF", "LISTEN_FDS": "one"}, id="not a number"),
    ],
)
def test_garbled_announcement(tcp4: socket.socket, told: dict[str, str]) -> None:
    result, left, _, _ = run([tcp4.fileno()], told)
    assert result.startswith("the descriptors that were announced are not there as announced (")
    assert f"LISTEN_FDS={told['LISTEN_FDS']!r}" in result
    assert "\n" not in result
    assert left == []
