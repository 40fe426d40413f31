"""Fuzz the values of fields: ranges, dates, Accept, Accept-Encoding, preconditions. See README.md.

The first byte of an input chooses what is read, the second and third make numbers.
"""

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from itertools import pairwise

from tests.fuzz import target

with target.instrumented():
    from pyserver import limits
    from pyserver.http import accept, conditional, dates, headers, negotiation, ranges
    from pyserver.http.ranges import UNSATISFIABLE

NOW = 1_700_000_000
SECONDS_MAX = 1.0  # for one value, on a machine that does other things: what is more is a pattern that explodes

CODINGS = (b"zstd", b"br", b"gzip")
TYPES = (b"text/html", b"application/json")
PRECONDITIONS = (b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since")


def a_range(value: bytes, size: int) -> None:
    found = ranges.resolve(value, size, part_bytes=size % 100)
    if found is None or found is UNSATISFIABLE:
        return
    assert 0 < len(found) <= limits.RANGES_MAX
    assert all(0 <= first < end <= size for first, end in found)
    ordered = sorted(found)
    assert all(before[1] <= after[0] for before, after in pairwise(ordered)), "a byte twice"
    assert len(found) == 1 or sum(end - first for first, end in found) <= size


def a_date(value: bytes, _size: int) -> None:
    found = dates.parse_http_date(value, NOW)
    if found is None:
        return
    written = dates.imf_fixdate(found)
    assert dates.parse_http_date(written, NOW) == found or not dates.EARLIEST <= found <= dates.LATEST
    if value.endswith(b"GMT") and value[3:4] == b"," and b":60 " not in value:
        assert int(parsedate_to_datetime(value.decode()).timestamp()) == found, "not what the standard library reads"


def a_media_type(value: bytes, _size: int) -> None:
    assert accept.choose(value, TYPES) in TYPES
    assert all(0 <= weight <= 1000 for _, weight in accept.parse(value))


def a_coding(value: bytes, _size: int) -> None:
    chosen = negotiation.choose(value, CODINGS)
    assert chosen is None or chosen in CODINGS
    wanted = negotiation.parse(value)
    assert all(0 <= weight <= 1000 for weight in wanted.values())
    if chosen is not None:
        assert wanted.get(chosen, wanted.get(b"*", 0)) > 0, "sent to who refuses it"


def a_precondition(value: bytes, size: int) -> None:
    fields = {PRECONDITIONS[size % 4]: value}
    for method in (b"GET", b"HEAD", b"OPTIONS"):
        assert conditional.evaluate(fields, b'"abc"', NOW - 5, method, NOW) in (None, 200, 304, 412)
    conditional.if_range_matches(value, b'"abc"', NOW - 5, NOW, settled=True)


def a_field(value: bytes, _size: int) -> None:
    found = headers.field(b"GET / HTTP/1.1\r\nX: y\r\n%b\r\n\r\n" % value, b"referer")
    assert found is None or not {13, 10} & set(found)
    headers.joined(b"GET / HTTP/1.1\r\n%b\r\n\r\n" % value, b"accept")


READERS: tuple[Callable[[bytes, int], None], ...] = (
    a_range,
    a_date,
    a_media_type,
    a_coding,
    a_precondition,
    a_field,
)

RANGES = (b"bytes=0-0", b"bytes=-1", b"bytes=0-,5-9", b"bytes=,,1-2 ,\t3-", b"bytes=9-1")
DATES = (
    *(b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sunday, 06-Nov-94 08:49:37 GMT", b"Sun Nov  6 08:49:37 1994"),
    *(b"Thu, 31 Dec 9999 23:59:60 GMT", b"Mon, 30 Feb 2000 00:00:00 GMT", b"Sat, 01 Jan 0000 00:00:00 GMT"),
)
SEEDS = (
    *(b"\x00\xff\x03" + value for value in RANGES),
    b"\x00\xff\x03bytes=" + b"99999999999999999999-, -" + b"9" * 40,
    b"\x00\x00\x00bytes=-5",
    *(b"\x01\x00\x00" + value for value in DATES),
    b"\x02\x00\x00text/html;level=1;q=0.5, */*;q=0.1, application/json",
    b'\x02\x00\x00text/html;a="\\"";q=0.999,,',
    b"\x03\x00\x00gzip;q=0, br;q=0.001, *;q=1, identity",
    *(b"\x04%c\x00" % number + value for number in range(4) for value in (b'"abc", W/"x"', b"*", DATES[0])),
    b"\x05\x00\x00Referer: \t x\r\nReferer:y",
)


def one_input(data: bytes) -> None:
    if len(data) < 3:
        return
    reader, size, value = READERS[data[0] % len(READERS)], int.from_bytes(data[1:3], "little"), data[3:]
    if b"\r" in value or b"\n" in value:
        reader = a_field  # no value of a field holds these (http.scanner)
    began = time.process_time()
    reader(value, size)
    assert time.process_time() - began < SECONDS_MAX, f"{reader.__name__} takes too long"


if __name__ == "__main__":
    target.main(one_input, SEEDS)
