"""Where a setting was written: files and options of the command line, down to the line.

Owns:    reading and parsing one file; finding the line of a key in its text.
Never:   knows which keys there are; config.reading does.
Fails:   ConfigError for a file that cannot be read or is not TOML.
Used by: config.reading, config.sites, config.system.
"""

import errno
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from pyserver.config.errors import ConfigError, place, strerror, whoever_we_are
from pyserver.config.record import Record
from pyserver.limits import CONFIG_MAX_BYTES, KIB

Keys: TypeAlias = tuple[str | int, ...]  # the way to a value: ("server", "workers"), ("site", 0, "root")


class Source(Record):
    """A file, or one option of the command line."""

    name: str
    base: str = ""  # folder that relative paths start from; "" is the working folder
    text: str = ""  # of a file

    def error(self, keys: Keys, what: str, instead: str) -> ConfigError:
        """Return the error for the value at `keys`."""
        return ConfigError(self.name, self._line(keys), what, instead)

    def place(self, keys: Keys) -> str:
        """Return where the value at `keys` is written."""
        return place(self.name, self._line(keys))

    def _line(self, keys: Keys) -> int | None:
        """Find the line where the value begins, or else where that begins which it is part of."""
        lines = lines_of_keys(self.text)
        return next((lines[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in lines), None)


class Setting(NamedTuple):
    """A value that was accepted, and where it is written."""

    value: Any
    source: Source
    keys: Keys

    def error(self, what: str, instead: str) -> ConfigError:
        """Return the error for this value."""
        return self.source.error(self.keys, what, instead)

    @property
    def place(self) -> str:
        """Where it is written."""
        return self.source.place(self.keys)


class Item(NamedTuple):
    """One [[table]] of a list: its settings, and the lists within it."""

    settings: dict[str, Setting]
    lists: dict[str, list["Item"]]
    source: Source
    keys: Keys

    def error(self, what: str, instead: str) -> ConfigError:
        """Return the error for this table."""
        return self.source.error(self.keys, what, instead)

    @property
    def place(self) -> str:
        """Where it is written."""
        return self.source.place(self.keys)


# -- reading -----------------------------------------------------------------------------------

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"  # which editors of Windows write, and TOML does not take

_WHY_UNREADABLE: Final = {
    errno.ENOENT: ("does not exist", "create it, or name another with --config FILE"),
    errno.ENOTDIR: ("does not exist", "create it, or name another with --config FILE"),
    errno.EISDIR: ("is a folder", "name a file in it with --config FILE"),
}


def read(path: str) -> Source:
    """Read one file; raises ConfigError."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(CONFIG_MAX_BYTES + 1)
    except OSError as error:
        otherwise = (f"cannot be read: {strerror(error)}", f"let {whoever_we_are()} read it")
        raise ConfigError(path, None, *_WHY_UNREADABLE.get(error.errno or 0, otherwise)) from None
    except ValueError:  # a NUL in the name
        raise ConfigError(path, None, "is not a path", "name a file with --config FILE") from None
    if len(content) > CONFIG_MAX_BYTES:
        too_large = f"is larger than {CONFIG_MAX_BYTES // KIB} KiB"
        raise ConfigError(path, None, too_large, "name a TOML file with --config FILE")
    if content.startswith(_BYTE_ORDER_MARK):
        raise ConfigError(path, 1, "begins with a byte order mark", "save it as UTF-8 without")
    try:
        return Source(path, str(Path(path).absolute().parent), content.decode())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        not_utf8 = f"byte 0x{content[error.start]:02x} is not UTF-8"
        raise ConfigError(path, line, not_utf8, "save the file as UTF-8") from None


# How tomllib's reasons begin (our case), and what to write; the last row is for all others.
_TO_WRITE: Final = (
    ("invalid value", 'write strings in quotes: key = "value"'),
    ("expected '='", "write key = value"),
    ("expected newline or end of document", "write one key = value on a line, strings in quotes"),
    ("cannot overwrite", "write each key once"),
    ("cannot mutate", "write each key once"),
    ("cannot declare", "write each [table] once"),
    ("expected ']'", "close the brackets"),
    ("unclosed", "close the brackets"),
    ("unterminated", "close the quotes"),
    ("illegal character '\\n'", "close the quotes"),
    ("", "write key = value lines below [table] lines"),
)
_POSITION: Final = re.compile(r" \(at (?:line (?P<line>[0-9]+), column [0-9]+|end of document)\)")


def parse(source: Source) -> dict[str, Any]:
    """Parse the text of a file; raises ConfigError."""
    try:
        return tomllib.loads(source.text)
    except tomllib.TOMLDecodeError as error:
        # Up to 3.13 the position stands only in the text of the error.
        position = _POSITION.search(str(error))
        last = source.text.rstrip("\n").count("\n") + 1
        line = int(position["line"]) if position and position["line"] else last
        reason = _POSITION.sub("", str(error)).partition("\n")[0]
        reason = reason[:1].lower() + reason[1:]
        instead = next(instead for begin, instead in _TO_WRITE if reason.startswith(begin))
        raise ConfigError(source.name, line, f"not valid TOML: {reason}", instead) from None
    except (ValueError, RecursionError):  # an integer of thousands of digits; thousands of nested brackets
        raise ConfigError(source.name, None, "not valid TOML: a value is too large", "write a smaller one") from None


# -- finding lines -------------------------------------------------------------------------------


# A statement is parsed anew with each of its lines; beyond so many the search ends, and an error tells less.
STATEMENT_MAX_LINES: Final = 200

# No key of ours is deeper than ("site", 0, "fields", 0, "set", "Vary"); what a mistake nests deeper has the line of
# what it is in.
KEYS_DEEP: Final = 8


def lines_of_keys(text: str) -> dict[Keys, int]:
    """Map each key of a valid TOML text to the line where it is first written.

    The grammar stays tomllib's: a statement ends with the first line after which it parses by itself.
    """
    found: dict[Keys, int] = {}
    items: Counter[Keys] = Counter()  # of each [[list]] so far
    table: Keys = ()
    statement, begin = "", 1
    for number, line in enumerate(text.split("\n"), 1):
        begin = begin if statement else number
        statement += f"{line}\n"
        try:
            parsed = tomllib.loads(statement)
        except (ValueError, RecursionError):
            if number - begin > STATEMENT_MAX_LINES:
                break
            continue  # it goes on in the next line
        if statement.lstrip().startswith("["):
            table = _opened(parsed, items)
            opened = [table[:n] for n in range(1, len(table) + 1)]
        else:
            opened = list(_keys_in(parsed, table))
        for keys in opened:
            found.setdefault(keys, begin)
        statement = ""
    return found


def _opened(header: Any, items: Counter[Keys]) -> Keys:  # noqa: ANN401  what tomllib makes of [a.b] and [[a.b]]
    keys: Keys = ()
    while header:
        ((name, header),) = header.items()
        keys += (name,)
        if isinstance(header, list):
            items[keys] += 1
            header = header[0]
        if items[keys]:
            keys += (items[keys] - 1,)
    return keys


def _keys_in(value: object, above: Keys) -> Iterator[Keys]:
    if len(above) >= KEYS_DEEP:
        return
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, deeper in inner:
        yield (*above, key)
        yield from _keys_in(deeper, (*above, key))
