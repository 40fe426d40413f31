"""The layout of a message, and what is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyserver.ipc.messages import LAYOUT, SIZE, VERSION, Garbled, Kind, Message, pack, unpack
from pyserver.limits import BATCH_MAX

messages = st.builds(
    Message,
    kind=st.sampled_from(Kind),
    generation=st.integers(0, 2**32 - 1),
    listener=st.integers(0, 255),
    carried=st.integers(0, 255),
    number=st.integers(0, 2**64 - 1),
    stamp_ns=st.integers(0, 2**64 - 1),
)


def test_the_size_has_no_holes() -> None:
    assert SIZE == 24
    assert BATCH_MAX <= 255, "carried is one byte"


@given(messages)
def test_what_is_packed_is_unpacked(message: Message) -> None:
    data = pack(message)
    assert len(data) == SIZE
    assert unpack(data) == message
    assert isinstance(unpack(data).kind, Kind)


@given(st.binary(max_size=3 * SIZE))
def test_any_bytes_are_a_message_or_garbled(data: bytes) -> None:
    try:
        assert pack(unpack(data)) == data
    except Garbled:
        assert len(data) != SIZE or data[0] != VERSION or data[1] not in set(Kind)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "a message of 0 bytes, expected 24"),
        (bytes(SIZE - 1), "a message of 23 bytes, expected 24"),
        (bytes(SIZE + 1), "a message of 25 bytes, expected 24"),
        (LAYOUT.pack(2, Kind.READY, 0, 0, 0, 0, 0), "a message of version 2 and kind 4, expected version 1"),
        (LAYOUT.pack(VERSION, 0, 0, 0, 0, 0, 0), "a message of version 1 and kind 0, expected version 1"),
        (LAYOUT.pack(VERSION, 9, 0, 0, 0, 0, 0), "a message of version 1 and kind 9, expected version 1"),
    ],
)
def test_garbled(data: bytes, why: str) -> None:
    with pytest.raises(Garbled) as raised:
        unpack(data)
    assert str(raised.value) == why
