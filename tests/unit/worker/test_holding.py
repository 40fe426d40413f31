"""Where connections wait and how they leave: on their own over an epoll, and in a Hall where a request is needed."""

import contextlib
import select
import socket
from collections.abc import Iterator

import pytest
from tests.unit.worker.conftest import Hall
from tests.unit.worker.test_connection import GET, LATE, heard, is_closed

from pyserver.clock import Clock
from pyserver.limits import BATCH_MAX, LINGER_MAX_BYTES, LINGER_S, PARKING_TICKS_PER_S
from pyserver.worker.client import Connection, Phase
from pyserver.worker.holding import Holding
from pyserver.worker.records import Records
from pyserver.worker.showing import Showing


class House:
    """Connections that nobody serves, and the other end of each."""

    def __init__(self) -> None:
        self.poll, self.clock = select.epoll(), Clock()
        records = Records(self.clock)
        self.holding = Holding(self.poll, 64, self.clock, records, Showing(self.clock, records), None, None)
        self.clients: list[socket.socket] = []

    def connection(self, *, origin: int = 0, seconds: float = 10.0) -> Connection:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self.clients.append(theirs)
        made = Connection(ours, ours.fileno(), self.clock.now + seconds, origin)
        self.holding.table[made.fd] = made
        return made

    def reported(self) -> list[tuple[int, int]]:
        return self.poll.poll(0)

    def due(self, seconds: float) -> list[Connection]:
        """Let time pass; who is due then?"""
        self.clock.now += seconds
        return self.holding.due(self.clock.now)


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    for connection in tuple(made.holding.table.values()):
        made.holding.close(connection)
    for client in made.clients:
        client.close()
    made.poll.close()


# -- waiting -----------------------------------------------------------------------------------------


def test_it_waits_for_what_it_is_watched_for_and_no_longer(house: House) -> None:
    connection = house.connection()
    house.clients[0].sendall(b"x")
    assert house.reported() == []
    house.holding.watch(connection, select.EPOLLIN)
    assert house.reported() == [(connection.fd, select.EPOLLIN)]
    house.holding.watch(connection, select.EPOLLOUT)
    assert house.reported() == [(connection.fd, select.EPOLLOUT)]
    house.holding.unwatch(connection)
    house.holding.unwatch(connection)
    assert house.reported() == []


def test_a_deadline_holds_wherever_it_moves(house: House) -> None:
    connection = house.connection(seconds=10.0)
    house.holding.watch(connection, select.EPOLLIN)
    connection.deadline += 10.0  # later: nobody is told
    house.holding.watch(connection, select.EPOLLIN)
    assert house.due(10.0 + LATE) == []
    connection.deadline = house.clock.now + 2.0  # sooner
    house.holding.watch(connection, select.EPOLLIN)
    assert house.due(2.0 + LATE) == [connection]
    house.holding.park(connection, house.clock.now + 5.0)
    assert house.due(5.0 - 1 / PARKING_TICKS_PER_S) == []
    assert house.due(1 / PARKING_TICKS_PER_S + LATE) == [connection]


# -- the ways out ------------------------------------------------------------------------------------


def test_what_is_closed_leaves_nothing(house: House) -> None:
    connection = house.connection()
    house.holding.watch(connection, select.EPOLLIN)
    house.holding.close(connection)
    house.holding.close(connection)
    assert is_closed(house.clients[0])
    assert not house.holding.table
    assert house.reported() == []
    assert house.due(20.0) == []


def test_a_descriptor_that_a_follower_works_with_stays_open_until_it_is_done(house: House) -> None:
    connection = house.connection()
    assert not house.holding.was_closed(connection)
    connection.phase = Phase.WORKING
    house.holding.close(connection)
    assert not house.holding.table
    assert not is_closed(house.clients[0]), "its number must not be another's yet"
    assert house.holding.was_closed(connection)
    assert is_closed(house.clients[0])


def test_those_that_go_back_together_are_of_one_listener(house: House) -> None:
    connections = [house.connection(origin=origin) for origin in [0] * (BATCH_MAX + 1) + [1, 0]]
    for connection in connections:
        house.holding.watch(connection, select.EPOLLIN)
        house.holding.give_back(connection)
    for client in house.clients:
        client.sendall(b"x")
    assert house.reported() == [], "what comes is for others"
    assert house.due(20.0) == []
    batches = []
    while batch := house.holding.to_return():
        batches.append(batch)
        for connection in batch:
            house.holding.close(connection)
    assert batches == [connections[:BATCH_MAX], connections[BATCH_MAX:-2], connections[-2:-1], connections[-1:]]


# -- lingering ---------------------------------------------------------------------------------------


def test_lingering_ends_after_its_time(hall: Hall) -> None:
    hall.client(b"nonsense\r\n\r\n")
    hall.turn()
    hall.wait(LINGER_S - 0.1)
    assert hall.connections.table
    hall.wait(0.1 + LATE)
    assert not hall.connections.table
    assert hall.tally.deadlines == 0, "that is no fault of the client"


def test_lingering_ends_after_so_many_bytes(hall: Hall) -> None:
    client = hall.client(b"nonsense\r\n\r\n")
    hall.turn()
    sent = 0
    with contextlib.suppress(BrokenPipeError):
        while hall.connections.table:
            sent += client.send(b"x" * 10_000)
            hall.turn()
    assert LINGER_MAX_BYTES < sent < LINGER_MAX_BYTES + 100_000


# -- room --------------------------------------------------------------------------------------------


def test_near_the_limit_idle_connections_make_room_the_oldest_first(hall: Hall) -> None:
    clients = []
    while not hall.connections.holding.full:
        clients.append(hall.client(GET))
        hall.turn()
        hall.clock.now += 1
    assert len(hall.connections.table) == 64 - BATCH_MAX + 1
    hall.connections.holding.make_room()
    for client in clients:
        heard(client)
    assert [is_closed(client) for client in clients] == [True] * BATCH_MAX + [False] * (len(clients) - BATCH_MAX)
    assert not hall.connections.holding.full


def test_who_never_had_an_answer_does_not_make_room(hall: Hall) -> None:
    while not hall.connections.holding.full:
        hall.client()
    hall.connections.holding.make_room()
    assert hall.connections.holding.full
