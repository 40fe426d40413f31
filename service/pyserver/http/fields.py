"""Field lines of answers as types, so that what could split an answer cannot be written into a head (RFC 9112 11.1).

Owns:    the types, the ways to make them, and the checks in those ways.
Never:   repairs what is wrong: a value that was changed is not what somebody meant.
Fails:   ValueError for what cannot be sent as one line (T-42). That is a mistake of ours; what a configuration says was
         refused when it was read.
Used by: http, handlers and worker, for each part of a head that they write: http.response takes nothing else.

To the interpreter they are bytes, so where one is used it costs nothing. It is mypy that refuses bytes which nobody
checked. A type is called by itself, which checks nothing, in this module and http.response, and elsewhere for templates
that take numbers only; tests/architecture/test_heads.py sees to that, and tries what mypy refuses.
"""

import re
from collections.abc import Iterable
from typing import Final, NewType

from pyserver.http.grammar import FIELD_BYTE, TCHAR

FieldName = NewType("FieldName", bytes)
FieldValue = NewType("FieldValue", bytes)
Lines = NewType("Lines", bytes)  # whole field lines with their ends: none, one or several

NO_VALUE: Final = FieldValue(b"")
NO_LINES: Final = Lines(b"")

_NAME: Final = re.compile(TCHAR + rb"++")
_VALUE: Final = re.compile(FIELD_BYTE + rb"*+")
_LINES: Final = re.compile(rb"(?:%b++: %b*+\r\n)+" % (TCHAR, FIELD_BYTE))


def field_name(name: bytes) -> FieldName:
    """Return a name that may stand before the colon."""
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} cannot be the name of a field")
    return FieldName(name)


def field_value(value: bytes) -> FieldValue:
    """Return a value that is of one line."""
    if _VALUE.fullmatch(value) is None:
        raise ValueError(f"{value!r} cannot be the value of a field")
    return FieldValue(value)


def field_line(name: FieldName, value: FieldValue) -> Lines:
    """Return the line of a field."""
    return Lines(b"%b: %b\r\n" % (name, value))


def written(lines: bytes) -> Lines:
    """Return lines that are written down whole, with their ends: constants."""
    if _LINES.fullmatch(lines) is None:
        raise ValueError(f"{lines!r} are no field lines")
    return Lines(lines)


def joined_lines(each: Iterable[Lines]) -> Lines:
    """Return lines one after the other."""
    return Lines(b"".join(each))
