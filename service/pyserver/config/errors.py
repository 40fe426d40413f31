"""What is said when something is wrong: one line with the place, the fact, and what to write instead.

Owns:    the two exceptions of the package, and how a value is shown in a message.
Never:   more than one line, whatever the configuration contains.
Used by: all of config (for cli, which prints it).
"""

import os
import pwd
from collections.abc import Iterable
from typing import Final


class Refused(Exception):
    """An option does not take this value: a predicate, and what to write (None: what the table says)."""

    def __init__(self, what: str, instead: str | None = None, *, within: tuple[str | int, ...] = ()) -> None:
        super().__init__(what)
        self.what = what
        self.instead = instead
        self.within = within  # where in the value: the keys from it to what is refused


class ConfigError(Exception):
    """The configuration cannot be used; its text is one line that a person can act on."""

    def __init__(self, file: str, line: int | None, what: str, instead: str) -> None:
        super().__init__(printable(f"{place(file, line)}: {what}; {instead}"))
        self.file = file  # or the option of the command line with its value
        self.line = line
        self.what = what
        self.instead = instead


def place(file: str, line: int | None) -> str:
    """Return `FILE:LINE`, which editors and terminals know how to open."""
    return file if line is None else f"{file}:{line}"


def printable(text: str) -> str:
    """Return `text` as one line that any terminal and any log can show: the rest is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


SHOWN_MAX: Final = 160  # characters of a value or a key in a message


def cut(text: str) -> str:
    """Return `text`, shortened where it would drown the message."""
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}..."


# TOML 1.0, basic-string: what may not stand there as it is.
_ESCAPES: Final = {code: f"\\u{code:04x}" for code in range(0x20)} | str.maketrans(
    {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
)


def literal(value: object) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, str):
        return cut(f'"{value.translate(_ESCAPES)}"')
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) >= 1 << 64:
        return cut(hex(value))  # thousands of decimal digits would be an error of the interpreter's
    if isinstance(value, list | tuple):
        # Not deeper: lists within lists may be nested as far as the parser's stack went.
        return cut(f"[{', '.join('[...]' if isinstance(item, list) else literal(item) for item in value)}]")
    return "{...}" if isinstance(value, dict) else cut(str(value))


def nearest(word: str, known: Iterable[str]) -> str:
    """Return which of the known words was meant, as far as one can tell; else an empty string."""
    from difflib import get_close_matches  # noqa: PLC0415  only who has made a mistake waits for it

    return next(iter(get_close_matches(word, [*known], 1)), "")


def strerror(error: OSError) -> str:
    """Return the system's reason in the case of our messages."""
    return (error.strerror or str(error)).lower()


def whoever_we_are() -> str:
    """Name the user whose rights this process has."""
    try:
        return f"user {pwd.getpwuid(os.geteuid()).pw_name}"
    except KeyError:
        return f"uid {os.geteuid()}"
