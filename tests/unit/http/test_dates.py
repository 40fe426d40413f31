import email.utils
import locale

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyserver.http import dates
from pyserver.http.dates import imf_fixdate, parse_http_date

EXAMPLE = 784_111_777  # of RFC 9110 5.6.7
NOW = 1_800_000_000  # January 2027


@pytest.mark.parametrize(
    "value",
    [b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sunday, 06-Nov-94 08:49:37 GMT", b"Sun Nov  6 08:49:37 1994"],
)
def test_the_three_forms(value: bytes) -> None:
    assert parse_http_date(value, NOW) == EXAMPLE


def test_the_form_that_is_sent() -> None:
    assert imf_fixdate(EXAMPLE) == b"Sun, 06 Nov 1994 08:49:37 GMT"
    assert imf_fixdate(0) == b"Thu, 01 Jan 1970 00:00:00 GMT"
    assert imf_fixdate(-1) == b"Wed, 31 Dec 1969 23:59:59 GMT"


def test_a_time_beyond_every_calendar_is_written_as_its_end() -> None:
    assert imf_fixdate(2**63) == b"Fri, 31 Dec 9999 23:59:59 GMT"
    assert imf_fixdate(-(2**63)) == b"Mon, 01 Jan 0001 00:00:00 GMT"


@pytest.mark.parametrize(
    ("value", "year"),
    [
        (b"Friday, 01-Jan-27 00:00:00 GMT", 2027),
        (b"Friday, 01-Jan-77 00:00:00 GMT", 2077),  # 50 years ahead is not more than 50
        (b"Friday, 01-Jan-78 00:00:00 GMT", 1978),
        (b"Friday, 01-Jan-99 00:00:00 GMT", 1999),
        (b"Friday, 01-Jan-00 00:00:00 GMT", 2000),
    ],
)
def test_two_digits_mean_a_year_that_is_not_far_ahead(value: bytes, year: int) -> None:
    seconds = parse_http_date(value, NOW)
    assert seconds is not None
    assert imf_fixdate(seconds)[12:16] == b"%d" % year


def test_two_digits_are_placed_by_the_year_we_are_in() -> None:
    seconds = parse_http_date(b"Friday, 01-Jan-10 00:00:00 GMT", 2_900_000_000)  # 2061
    assert seconds is not None
    assert imf_fixdate(seconds)[12:16] == b"2110"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"0",
        b"Sun, 06 Nov 1994 08:49:37",
        b"Sun, 06 Nov 1994 08:49:37 UTC",
        b"Sun, 06 Nov 1994 08:49:37 +0000",
        b"sun, 06 nov 1994 08:49:37 gmt",  # case-sensitive
        b"Sun, 6 Nov 1994 08:49:37 GMT",
        b"Sun,  06 Nov 1994 08:49:37 GMT",
        b"Sun, 31 Feb 1994 08:49:37 GMT",
        b"Sun, 06 Nov 0000 08:49:37 GMT",
        b"Sun, 06 Nov 1994 24:00:00 GMT",
        b"Sun, 06 Nov 1994 08:60:00 GMT",
        b"Sun, 06 Nov 1994 08:49:61 GMT",
        b"Sun, +6 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Nov 1_94 08:49:37 GMT",
        b"Son, 06 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
        b"Sun Nov 06 08:49:37 1994 GMT",
        b"Sun, 06 Nov 1994 08:49:37 GMT\n",
    ],
)
def test_what_is_no_date(value: bytes) -> None:
    assert parse_http_date(value, NOW) is None


def test_a_leap_second_is_a_time() -> None:
    assert parse_http_date(b"Sat, 31 Dec 2016 23:59:60 GMT", NOW) == 1_483_228_800


@given(st.integers(dates.EARLIEST, dates.LATEST))
def test_what_is_written_is_read_again(second: int) -> None:
    assert parse_http_date(imf_fixdate(second), NOW) == second


@given(st.integers(0, 4_000_000_000))
def test_the_standard_library_writes_the_same(second: int) -> None:
    assert imf_fixdate(second).decode() == email.utils.formatdate(second, usegmt=True)


@given(st.binary(max_size=40))
def test_any_bytes_are_a_date_or_none(value: bytes) -> None:
    parse_http_date(value, NOW)


def test_the_locale_does_not_matter() -> None:
    before = locale.setlocale(locale.LC_TIME)
    for name in ("de_DE.UTF-8", "C.UTF-8"):
        try:
            locale.setlocale(locale.LC_TIME, name)
        except locale.Error:
            continue
        assert imf_fixdate(EXAMPLE) == b"Sun, 06 Nov 1994 08:49:37 GMT"
    locale.setlocale(locale.LC_TIME, before)
