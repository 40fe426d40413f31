"""HTTP dates, read and written (RFC 9110 5.6.7).

Owns:    the three forms. Names of days and months are English, whatever the locale.
Never:   asks for the time: the caller knows what now is.
Fails:   never; what is no date is None, what no calendar holds is written as the nearest that one does.
Used by: http.conditional (reads), handlers and worker (write).
"""

import re
from datetime import UTC, datetime
from typing import Final

from pyserver.http.fields import FieldValue, field_value

DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

MONTH_NUMBER: Final = {name.encode(): number for number, name in enumerate(MONTHS, start=1)}

# What a calendar of years 1 to 9999 holds. A file's time may be anything.
EARLIEST: Final = int(datetime(1, 1, 1, tzinfo=UTC).timestamp())
LATEST: Final = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())

# time-of-day = hour ":" minute ":" second ; 00:00:00 - 23:59:60 (leap second)
_TIME = rb"(?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9]):(?P<second>[0-5][0-9]|60)"
_DAY_NAME = "|".join(DAYS).encode()
_MONTH = rb"(?P<month>" + "|".join(MONTHS).encode() + rb")"

# RFC 9110 5.6.7   HTTP-date = IMF-fixdate / obs-date ; obs-date = rfc850-date / asctime-date. Case-sensitive.
FORMS: Final = (
    # IMF-fixdate = day-name "," SP date1 SP time-of-day SP GMT      ; Sun, 06 Nov 1994 08:49:37 GMT
    re.compile(rb"(?:%b), (?P<day>[0-9]{2}) %b (?P<year>[0-9]{4}) %b GMT" % (_DAY_NAME, _MONTH, _TIME)),
    # rfc850-date = day-name-l "," SP date2 SP time-of-day SP GMT    ; Sunday, 06-Nov-94 08:49:37 GMT
    re.compile(
        rb"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (?P<day>[0-9]{2})-%b-(?P<year>[0-9]{2}) %b GMT" % (_MONTH, _TIME)
    ),
    # asctime-date = day-name SP date3 SP time-of-day SP year        ; Sun Nov  6 08:49:37 1994
    re.compile(rb"(?:%b) %b (?P<day>[0-9]{2}| [0-9]) %b (?P<year>[0-9]{4})" % (_DAY_NAME, _MONTH, _TIME)),
)


def imf_fixdate(second: int) -> FieldValue:
    """Write a time, in seconds since the epoch, in the one form that is sent."""
    at = datetime.fromtimestamp(min(max(second, EARLIEST), LATEST), UTC)
    written = (
        f"{DAYS[at.weekday()]}, {at.day:02} {MONTHS[at.month - 1]} {at.year:04} "
        f"{at.hour:02}:{at.minute:02}:{at.second:02} GMT"
    )
    return field_value(written.encode("ascii"))


def parse_http_date(value: bytes, now: int) -> int | None:
    """Read a date in any of the three forms, as seconds since the epoch; None when it is none.

    `now` places the two-digit years of rfc850-date. The name of the day has to be one; whether it is that day's is
    not looked at (nothing depends on it).
    """
    for form in FORMS:
        found = form.fullmatch(value)
        if found is not None:
            return _seconds(found, now)
    return None


def _seconds(found: re.Match[bytes], now: int) -> int | None:
    year, month, day = int(found["year"]), MONTH_NUMBER[found["month"]], int(found["day"])
    if len(found["year"]) == 2:
        year = _full_year(year, now)
    try:
        midnight = int(datetime(year, month, day, tzinfo=UTC).timestamp())
    except ValueError:  # 30 Feb, year 0
        return None
    return midnight + 3600 * int(found["hour"]) + 60 * int(found["minute"]) + int(found["second"])


def _full_year(two_digits: int, now: int) -> int:
    """Return the year meant: at most 50 years in the future, else the most recent one that ends so (5.6.7)."""
    this_year = datetime.fromtimestamp(min(max(now, 0), LATEST), UTC).year
    year = this_year - this_year % 100 + two_digits
    if year > this_year + 50:
        return year - 100
    return year + 100 if year <= this_year - 50 else year
