"""Who is one client, who is exempt, and what is said and counted of those who want too much."""

import logging
import socket
from collections.abc import Iterator

import pytest

from pyserver.clock import Clock
from pyserver.config import Clients
from pyserver.ipc.clients import ClientTable
from pyserver.ipc.stats import Tally
from pyserver.limits import CLIENTS_TOLD_MAX, CLIENTS_TOLD_S
from pyserver.worker.admission import Admission, _Network, key_of_address, named


class Door:
    """An Admission, and clients from any address of loopback."""

    def __init__(self, table: ClientTable, options: Clients) -> None:
        self.clock = Clock()
        self.tally = Tally()
        self.admission = Admission(options, table, 0, self.clock, self.tally)


class Peers:
    """Connections from addresses of loopback."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.opened: list[socket.socket] = [self.listener]

    def __call__(self, source: str) -> socket.socket:
        client = socket.create_connection(self.listener.getsockname(), 5, (source, 0))
        self.opened.append(client)
        served, _ = self.listener.accept()
        self.opened.append(served)
        return served


@pytest.fixture
def peer() -> Iterator[Peers]:
    peers = Peers()
    yield peers
    for each in peers.opened:
        each.close()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2", True),
        ("::1", "0.0.0.0", False),
    ],
)
def test_who_is_one_client(one: str, other: str, *, same: bool) -> None:
    assert (key_of_address(one) == key_of_address(other)) is same


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
    ],
)
def test_how_a_client_is_named(address: str, name: str) -> None:
    assert named(key_of_address(address)) == name


@pytest.mark.parametrize(
    ("network", "address", "exempt"),
    [
        ("192.0.2.0/24", "192.0.2.255", True),
        ("192.0.2.0/24", "192.0.3.0", False),
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.6", False),
        ("0.0.0.0/0", "203.0.113.1", True),
        ("0.0.0.0/0", "2001:db8::1", False),
        ("2001:db8::/32", "2001:db8:5::1", True),
        ("2001:db8::/32", "2001:db9::1", False),
        ("2001:db8::1", "2001:db8::2", True),  # one client: its /64
        ("::/0", "192.0.2.1", False),
    ],
)
def test_exempt_networks(network: str, address: str, *, exempt: bool) -> None:
    assert _Network(network).has(key_of_address(address)) is exempt


def test_a_unix_peer_and_an_exempt_one_are_not_counted(table: ClientTable, peer: Peers) -> None:
    door = Door(table, Clients(connections=1, exempt=("127.0.0.2/31",)))
    one, other = socket.socketpair()
    with one, other:
        assert door.admission.places_of(one) is None
    assert door.admission.places_of(peer("127.0.0.3")) is None
    assert door.admission.places_of(peer("127.0.0.4")) is not None


def test_open_connections(table: ClientTable, peer: Peers, caplog: pytest.LogCaptureFixture) -> None:
    door = Door(table, Clients(connections=2))
    client = peer("127.0.0.2")
    places = door.admission.places_of(client)
    assert places is not None
    assert [door.admission.enter(places, client) for _ in range(4)] == [True, True, False, False]
    assert door.tally.limited_open == 2
    door.admission.leave(places)
    assert door.admission.enter(places, client)
    assert [record.message for record in caplog.records] == ["client 127.0.0.2 wants more than 2 connections, refused"]


def test_new_connections(table: ClientTable, peer: Peers, caplog: pytest.LogCaptureFixture) -> None:
    door = Door(table, Clients(connection_rate=10, connection_burst=3))
    client = peer("127.0.0.2")
    places = door.admission.places_of(client)
    assert places is not None
    assert [door.admission.enter(places, client) for _ in range(5)] == [True, True, True, False, False]
    assert door.tally.limited_connections == 2
    assert table.open_now(places) == 3
    door.clock.now += 0.1001
    assert [door.admission.enter(places, client) for _ in range(2)] == [True, False]
    assert "more than 10 connections a second, refused" in caplog.text


def test_requests(table: ClientTable, peer: Peers) -> None:
    door = Door(table, Clients(request_rate=1, request_burst=2))
    client = peer("127.0.0.2")
    places = door.admission.places_of(client)
    assert places is not None
    assert [door.admission.request(places, client) for _ in range(4)] == [0, 0, 1, 1]
    assert door.tally.limited_requests == 2
    door.clock.now += 1
    assert [door.admission.request(places, client) for _ in range(2)] == [0, 1]


def test_a_dry_run_counts_and_refuses_nothing(
    table: ClientTable, peer: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    door = Door(table, Clients(connections=1, request_rate=1, request_burst=1, dry_run=True))
    client = peer("127.0.0.2")
    places = door.admission.places_of(client)
    assert places is not None
    assert [door.admission.enter(places, client) for _ in range(3)] == [True] * 3
    assert table.open_now(places) == 3
    assert [door.admission.request(places, client) for _ in range(3)] == [0] * 3
    assert (door.tally.limited_open, door.tally.limited_requests) == (2, 2)
    assert [record.message for record in caplog.records] == [
        "client 127.0.0.2 wants more than 1 connections, would be refused (dry run)"
    ]


def test_a_flood_of_clients_is_not_one_of_the_log(
    table: ClientTable, peer: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    door = Door(table, Clients(request_rate=1, request_burst=1))
    for number in range(CLIENTS_TOLD_MAX + 5):
        client = peer(f"127.0.1.{number + 1}")
        for _ in range(4):
            door.admission.request((number, number), client)
    assert len(caplog.records) == CLIENTS_TOLD_MAX
    door.admission.turn()
    assert len(caplog.records) == CLIENTS_TOLD_MAX, "its time has not come"
    caplog.clear()
    door.clock.now += CLIENTS_TOLD_S
    door.admission.turn()
    assert [record.message for record in caplog.records] == [
        "15 refusals of further clients by the limits of [clients]"
    ]
    client = peer("127.0.1.1")
    door.admission.request((1, 1), client)
    door.admission.request((1, 1), client)
    assert "client 127.0.1.1 wants" in caplog.text, "told of again in the next period"
