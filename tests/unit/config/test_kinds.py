from datetime import UTC, datetime

import pytest

from pyserver.config.errors import Refused
from pyserver.config.kinds import COUNT, COUNT_OR_AUTO, FOLDER, LOG_TARGET, NAMES, SECONDS, SIZE, Kind, is_a


@pytest.mark.parametrize(
    ("kind", "written", "taken"),
    [
        (COUNT, 3, 3),
        (COUNT_OR_AUTO, "auto", "auto"),
        (COUNT_OR_AUTO, 3, 3),
        (SECONDS, 3, 3.0),
        (SECONDS, 0.25, 0.25),
        (SIZE, 0, 0),
        (SIZE, "1KiB", 1 << 10),
        (SIZE, "2 MiB", 2 << 20),
        (SIZE, "3GiB", 3 << 30),
        (LOG_TARGET, "off", "off"),
        (LOG_TARGET, "-", "-"),
        (LOG_TARGET, "a.log", "/etc/a.log"),
        (LOG_TARGET, "./off", "/etc/off"),
        (LOG_TARGET, "/var/log/a.log", "/var/log/a.log"),
        (FOLDER, ".", "/etc"),
        (FOLDER, "/srv//www/./a/", "/srv/www/a"),
        (FOLDER, "/srv/../www", "/srv/../www"),  # what ".." means is for the kernel
        (FOLDER, "a b/é", "/etc/a b/é"),
        (NAMES, [], ()),
        (NAMES, ["a", "b.html"], ("a", "b.html")),
    ],
)
def test_what_is_taken(kind: Kind, written: object, taken: object) -> None:
    assert kind.read(written, "/etc") == taken


@pytest.mark.parametrize("kind", [COUNT, COUNT_OR_AUTO, SECONDS, SIZE], ids=lambda kind: kind.written)
@pytest.mark.parametrize("value", [True, False])
def test_a_boolean_is_no_number(kind: Kind, value: bool) -> None:
    with pytest.raises(Refused, match="is a boolean"):
        kind.read(value, "")


@pytest.mark.parametrize("text", ["", "MiB", "-1MiB", "+1MiB", "1.5MiB", "1MiBs", "1  MiB", "0x1MiB", "٣MiB", "1TiB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(Refused, match="is not a size"):
        SIZE.read(text, "")


@pytest.mark.parametrize("text", ["1k", "1kb", "1 K", "1kib", "1KB"])
def test_a_size_with_a_unit_of_elsewhere(text: str) -> None:
    with pytest.raises(Refused) as caught:
        SIZE.read(text, "")
    assert caught.value.instead == 'write "1KiB"'


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, "is a boolean"),
        (1, "is a whole number"),
        (1.0, "is a number with a fraction"),
        ("", "is a string"),
        ([], "is a list"),
        ({}, "is a table"),
        (datetime(2001, 1, 1, tzinfo=UTC), "is a date or time"),
    ],
)
def test_types_are_named_as_toml_names_them(value: object, expected: str) -> None:
    assert is_a(value) == expected
