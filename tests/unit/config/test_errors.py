import json
import os
import sys

import pytest

from pyserver.config.errors import ConfigError, literal, nearest, place, printable, strerror, whoever_we_are


def test_an_error_is_one_line_and_keeps_its_parts() -> None:
    error = ConfigError("/etc/x.toml", 12, "unknown key 'worker' in [server]", "did you mean 'workers'?")
    assert str(error) == "/etc/x.toml:12: unknown key 'worker' in [server]; did you mean 'workers'?"
    assert (error.file, error.line, error.what, error.instead) == (
        "/etc/x.toml",
        12,
        "unknown key 'worker' in [server]",
        "did you mean 'workers'?",
    )


@pytest.mark.parametrize(("line", "expected"), [(None, "x.toml"), (1, "x.toml:1")])
def test_a_place(line: int | None, expected: str) -> None:
    assert place("x.toml", line) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Grüße, 世界", "Grüße, 世界"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\u2028\u202e", "\\u2028\\u202e"),
        (os.fsdecode(b"\xff"), "\\udcff"),  # a name on the disk that is not UTF-8
    ],
)
def test_what_a_terminal_or_a_log_would_not_show_is_escaped(text: str, expected: str) -> None:
    assert printable(text) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('a"b', '"a\\"b"'),
        (True, "true"),
        (0, "0"),
        (1.5, "1.5"),
        (float("inf"), "inf"),
        (1 << 64, "0x10000000000000000"),
        (["a", 1, [False]], '["a", 1, [...]]'),
        (("index.html",), '["index.html"]'),
        ({"a": 1}, "{...}"),
        ("x" * 1000, '"' + "x" * 159 + "..."),
    ],
)
def test_a_value_is_shown_as_toml_writes_it(value: object, expected: str) -> None:
    assert literal(value) == expected


def test_reasons_are_in_our_case() -> None:
    assert strerror(PermissionError(13, "Permission denied")) == "permission denied"
    assert strerror(OSError("Odd")) == "odd"


def test_whoever_we_are(unprivileged: str) -> None:
    assert whoever_we_are() == unprivileged


def test_whoever_has_no_name() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become a user without a name")
    os.seteuid(54321)
    try:
        assert whoever_we_are() == "uid 54321"
    finally:
        os.seteuid(0)


def test_every_character_is_quoted_as_json_does() -> None:
    for code in range(sys.maxunicode + 1):
        if code < 0x300 or code % 97 == 0:
            assert literal(chr(code)) == json.dumps(chr(code), ensure_ascii=False)


@pytest.mark.parametrize(("word", "expected"), [("worker", "workers"), ("thread", "threads"), ("xyzzy", "")])
def test_what_was_meant(word: str, expected: str) -> None:
    assert nearest(word, ("workers", "threads", "queue")) == expected
