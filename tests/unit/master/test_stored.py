"""Real sockets, left with a socket that stands for systemd, and taken from what an earlier start left."""

import logging
import os
import socket

import pytest
from tests.unit.master.around import Around

from pyserver.ipc.channel import Kind
from pyserver.ipc.segment import HEADER, Segment
from pyserver.limits import BATCH_MAX, STORED_BATCH_MAX
from pyserver.master import stored
from pyserver.sd import fdstore
from pyserver.sd.fdstore import Stored


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_they_go_on_where_their_listener_is(around: Around, caplog: pytest.LogCaptureFixture) -> None:
    name = fdstore.parked_name("http")
    fitting, of_another = socket.socket(socket.AF_INET).detach(), socket.socket(socket.AF_INET).detach()
    other_family, no_socket = socket.socket(socket.AF_UNIX).detach(), os.open(os.devnull, os.O_RDONLY)
    found = [
        Stored(name, fitting),
        Stored(fdstore.parked_name("elsewhere"), of_another),
        Stored(name, other_family),
        Stored(name, no_socket),
    ]
    with caplog.at_level(logging.INFO):
        stored.go_on(found, around.acceptor, around.origins, around.notifier)
    assert found == []
    assert [(descriptors, message.kind, counted) for descriptors, message, counted in around.acceptor.carried] == [
        ([fitting], Kind.PARKED, False)
    ]
    assert not os.get_inheritable(fitting)
    assert [is_open(each) for each in (of_another, other_family, no_socket)] == [False] * 3
    assert "1 idle connections of an earlier start go on" in caplog.text
    assert sum("FDSTOREREMOVE=1" in text for text in around.told()) == 2


def test_they_go_on_in_batches(around: Around) -> None:
    descriptors = [socket.socket(socket.AF_INET).detach() for _ in range(BATCH_MAX + 1)]
    found = [Stored(fdstore.parked_name("http"), descriptor) for descriptor in descriptors]
    stored.go_on(found, around.acceptor, around.origins, around.notifier)
    assert [carried for carried, _, _ in around.acceptor.carried] == [descriptors[:BATCH_MAX], descriptors[BATCH_MAX:]]
    assert [message.carried for _, message, _ in around.acceptor.carried] == [BATCH_MAX, 1]


def test_totals_go_on_and_clients_stay_where_they_are_until_there_is_a_worker(around: Around) -> None:
    earlier = Segment.create(1, 1)
    earlier.words[HEADER["restarts"]] = 7
    segment, client = os.dup(earlier.descriptors()[0]), socket.socket(socket.AF_INET).detach()
    found = [Stored(fdstore.SEGMENT, segment), Stored(fdstore.parked_name("http"), client)]
    stored.inherit(found, around.segment, around.notifier)
    assert around.segment.words[HEADER["restarts"]] == 7
    assert found == [Stored(fdstore.parked_name("http"), client)]
    told = around.told()
    assert told == [f"FDSTOREREMOVE=1\nFDNAME={fdstore.SEGMENT}", f"FDSTORE=1\nFDNAME={fdstore.SEGMENT} +1"]
    assert around.acceptor.carried == []
    stored.close(found)
    assert found == []
    assert not is_open(segment)
    assert not is_open(client)
    earlier.close()


def test_they_are_left_in_batches_under_the_name_of_their_listener(around: Around) -> None:
    parked = [(socket.socket(socket.AF_INET).detach(), 0) for _ in range(STORED_BATCH_MAX + 1)]
    stored.leave(parked, around.origins, around.notifier)
    told = around.told()
    assert [text.rpartition(" ")[2] for text in told] == [f"+{STORED_BATCH_MAX}", "+1"]
    assert all(f"FDNAME={fdstore.parked_name('http')}" in text for text in told)
    assert not any(is_open(descriptor) for descriptor, _ in parked)
