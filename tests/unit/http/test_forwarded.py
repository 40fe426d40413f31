"""Who is the client behind proxies: the way back ends at the first hop that nobody trusted speaks for."""

import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyserver.http.forwarded import address, client, hops_of_forwarded, hops_of_x_forwarded_for
from pyserver.limits import FORWARDED_MAX_BYTES

Hops = Callable[[bytes], Iterator[bytes | None]]
PEER = b"10.0.0.1"


def trusts(host: bytes) -> bool:
    return host.startswith(b"10.") or host == b"2001:db8::10"


def found_by(hops: Hops, value: bytes) -> bytes:
    return client(hops(value), PEER, trusts)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        (b"192.0.2.7", b"192.0.2.7"),
        (b"2001:DB8:0:0::7", b"2001:db8::7"),
        (b"::ffff:192.0.2.7", b"192.0.2.7"),
        (b"192.0.2.07", None),
        (b"192.0.2.256", None),
        (b"192.0.2", None),
        (b"3221225991", None),
        (b"0xc0.0.2.7", None),
        (b"fe80::1%eth0", None),
        (b"unix:", None),
        (b"", None),
        (b"192.0.2.7\n", None),
        ("\uff11\uff19\uff12.0.2.7".encode(), None),
    ],
)
def test_addresses(text: bytes, canonical: bytes | None) -> None:
    assert address(text) == canonical


X_FORWARDED_FOR = {
    b"192.0.2.7": b"192.0.2.7",
    b"192.0.2.7, 10.0.0.2": b"192.0.2.7",
    b"192.0.2.7,10.0.0.2,10.0.0.3": b"192.0.2.7",
    b"6.6.6.6, 192.0.2.7, 10.0.0.2": b"192.0.2.7",  # what a client wrote itself
    b"10.0.0.9, 192.0.2.7": b"192.0.2.7",  # ... to pass for a trusted one
    b"10.0.0.3, 10.0.0.2": b"10.0.0.3",  # a proxy asks for itself
    b"2001:db8::7": b"2001:db8::7",
    b"[2001:db8::7]": b"2001:db8::7",
    b"[2001:db8::7]:4711": b"2001:db8::7",
    b"192.0.2.7:4711": b"192.0.2.7",
    b"192.0.2.7, 2001:DB8::10": b"192.0.2.7",
    b"::ffff:192.0.2.7": b"192.0.2.7",
    b"192.0.2.7, , 10.0.0.2,": b"192.0.2.7",  # RFC 9110 5.6.1.2
    b"": PEER,
    b" , ,": PEER,
    b"unknown": PEER,
    b"6.6.6.6, unknown": PEER,
    b"6.6.6.6, 192.0.2.7:x": PEER,
    b"6.6.6.6, rubbish, 10.0.0.2": b"10.0.0.2",
    b"6.6.6.6, 192.0.2.07": PEER,
    b"6.6.6.6, 192.0.2.7 8": PEER,
    b'6.6.6.6, "192.0.2.7"': PEER,
    b"192.0.2.7, " + b"10.0.0.2, " * 20 + b"10.0.0.3": b"192.0.2.7",
    # Longer than is looked at: nothing of what is cut, and no half of an address.
    b"192.0.2.7, " + b"10.0.0.2," * 200: b"10.0.0.2",
    b"6.6.6.6," + b"x" * FORWARDED_MAX_BYTES: PEER,
    b"x" * 5000 + b",192.0.2.7": b"192.0.2.7",
}

FORWARDED = {
    b"for=192.0.2.7": b"192.0.2.7",
    b"For=192.0.2.7;proto=http;by=203.0.113.43": b"192.0.2.7",
    b"by=203.0.113.43; FOR=192.0.2.7 ;proto=http": b"192.0.2.7",
    b'for="192.0.2.7:4711"': b"192.0.2.7",
    b'for="[2001:db8:cafe::17]:4711"': b"2001:db8:cafe::17",
    b'for="[2001:db8:cafe::17]:_port"': b"2001:db8:cafe::17",
    b"for=192.0.2.43, for=10.0.0.2": b"192.0.2.43",
    b'for=192.0.2.43,for="[2001:db8::10]";proto=https,for=10.0.0.2': b"192.0.2.43",
    b"for=6.6.6.6, for=192.0.2.43, for=10.0.0.2": b"192.0.2.43",
    b"for=192.0.2.43, ,;, for=10.0.0.2,": b"192.0.2.43",
    b'for=192.0.2.7;host="a, for=6.6.6.6"': b"192.0.2.7",  # a comma within quotation marks is none
    b'for=192.0.2.7;host="a\\", for=6.6.6.6;b=\\"c"': b"192.0.2.7",
    b'for="6.6.6.6, for=192.0.2.7': b"192.0.2.7",  # an open quotation mark of the client does not swallow ours
    b'for=", for="192.0.2.7"': b"192.0.2.7",
    b'for=6.6.6.6;a=", for="[2001:db8::7]"': b"2001:db8::7",
    b"for=2001:db8::7": b"2001:db8::7",  # not as the RFC has it, but it says who it is
    b'for="192.0.2.\\7"': b"192.0.2.7",
    b"for=unknown": PEER,
    b"for=_hidden, for=10.0.0.2": b"10.0.0.2",
    b"for=6.6.6.6, for=_SEVKISEK": PEER,
    b"for=6.6.6.6, proto=https": PEER,  # a hop that does not say for whom
    b"for=6.6.6.6;for=192.0.2.7": PEER,
    b"for=6.6.6.6, for": PEER,
    b"for=6.6.6.6, for=": PEER,
    b"for=6.6.6.6, for =192.0.2.7": PEER,
    b'for=6.6.6.6, for="192.0.2.7': PEER,
    b"for=6.6.6.6, for=192.0.2.07": PEER,
    b"": PEER,
    b",": PEER,
    b";": PEER,
    b"for=6.6.6.6," + b"for=10.0.0.2," * 100: b"10.0.0.2",
}


@pytest.mark.parametrize(("value", "expected"), X_FORWARDED_FOR.items(), ids=lambda value: repr(value)[:60])
def test_x_forwarded_for(value: bytes, expected: bytes) -> None:
    assert found_by(hops_of_x_forwarded_for, value) == expected


@pytest.mark.parametrize(("value", "expected"), FORWARDED.items(), ids=lambda value: repr(value)[:60])
def test_forwarded(value: bytes, expected: bytes) -> None:
    assert found_by(hops_of_forwarded, value) == expected


# What a client may write in front of what our proxies append: anything that a field takes.
BYTES = st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f")
ITS_OWN = st.one_of(
    st.text(BYTES, max_size=60),
    st.lists(
        st.sampled_from(["for=6.6.6.6", "for=10.0.0.7", '"', ",", ";", "=", "\\", " ", "for=", "6.6.6.6", "10.0.0.7"]),
        max_size=12,
    ).map("".join),
).map(lambda text: text.encode("latin-1"))
PROXIES = st.lists(st.sampled_from([b"10.0.0.2", b"10.0.0.3", b"2001:db8::10"]), max_size=3)


def as_node(host: bytes) -> bytes:
    return b'for="[%b]:80"' % host if b":" in host else b"for=" + host


@given(ITS_OWN, PROXIES, st.sampled_from([b", ", b",", b" ,  "]))
def test_a_client_cannot_choose_its_address(own: bytes, proxies: list[bytes], comma: bytes) -> None:
    for true in (b"192.0.2.7", b"2001:db8::7"):
        told = [true, *proxies]
        assert found_by(hops_of_x_forwarded_for, comma.join([own, *told])) == true
        assert found_by(hops_of_forwarded, comma.join([own, *map(as_node, told)])) == true
        assert (
            found_by(hops_of_forwarded, comma.join([own, *(b"%b;proto=http" % as_node(one) for one in told)])) == true
        )


@given(ITS_OWN)
def test_without_a_trusted_hop_it_is_an_address_or_the_peer(own: bytes) -> None:
    for hops in (hops_of_forwarded, hops_of_x_forwarded_for):
        found = found_by(hops, own)
        assert found == PEER or address(found) == found


@pytest.mark.parametrize("hops", [hops_of_forwarded, hops_of_x_forwarded_for])
@pytest.mark.parametrize(
    "part", [b",", b'"', b'a=",', b"a=b;", b'a="\\', b"a=b,", b"\\,", b"for=10.0.0.2,", b'a="b",', b'a=",\';"']
)
def test_nothing_takes_long(hops: Hops, part: bytes) -> None:
    """A quadratic walk over so many bytes is milliseconds; one that backtracks would be days."""
    for value in (part * 8192, part * 8192 + b'"', part * 8192 + b"="):
        began = time.thread_time()
        found_by(hops, value)
        assert time.thread_time() - began < 0.5
