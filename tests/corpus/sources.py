"""The corpora of other projects, where they lie beside the repository: what was sent, and what they expect.

Each reader below says how its source is written and what has to be mended before it can be replayed.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import NamedTuple

CORPORA = Path(__file__).resolve().parents[3] / "shared" / "corpora"

HOST = b"localhost:8080"


class Expected(Enum):
    ACCEPTED = "accepted"
    REFUSED = "refused"
    INCOMPLETE = "incomplete"
    ANYTHING = "anything"  # they say nothing, or the RFC leaves it open


class Entry(NamedTuple):
    name: str  # source/id, unique
    raw: bytes
    expected: Expected

    def __repr__(self) -> str:
        return self.name


def requests() -> list[Entry]:
    """Every request of every source."""
    return list(_unique(_all()))


def lines(name: str) -> list[bytes]:
    """A plain list of payloads."""
    path = CORPORA / name
    return path.read_bytes().splitlines() if path.exists() else []


def gadgets() -> list[tuple[str, bytes]]:
    """Lines that some server takes for a Transfer-Encoding and another one does not."""
    return [(f"{number}:{entry['id']}", _bytes(entry)) for number, entry in enumerate(_jsonl("smuggling-gadgets"))]


def _all() -> Iterator[Entry]:
    yield from _gunicorn()
    for source in ("go", "httpd", "lighttpd", "nginx", "picohttpparser", "python-suites"):
        for entry in _jsonl(source):
            yield Entry(f"{source}/{entry['id']}", _bytes(entry), WORDS[entry["expect"]])
    for entry in _jsonl("llhttp"):
        yield Entry(f"llhttp/{entry['id']}", with_host(_whole_lines(_bytes(entry))), WORDS[entry["expect"]])
    for entry in _jsonl("http11probe"):
        yield Entry(f"http11probe/{entry['id']}", _bytes(entry), _probe_expects(entry))


WORDS = {
    "accept": Expected.ACCEPTED,
    "reject": Expected.REFUSED,
    "incomplete": Expected.INCOMPLETE,
    "": Expected.ANYTHING,
}


def _gunicorn() -> Iterator[Entry]:
    # One request a file; line ends are spelt out, real ones mean nothing. They do not look at Host.
    for folder, expected in (("valid", Expected.ACCEPTED), ("invalid", Expected.REFUSED)):
        for path in sorted((CORPORA / "gunicorn" / folder).glob("*.http")):
            raw = path.read_bytes().replace(b"\n", b"")
            for spelt, byte in ((rb"\r\n", b"\r\n"), (rb"\0", b"\0"), (rb"\n", b"\n"), (rb"\t", b"\t")):
                raw = raw.replace(spelt, byte)
            raw = re.sub(rb"\\x([0-9A-Fa-f]{2})", lambda found: bytes((int(found[1], 16),)), raw)
            yield Entry(f"gunicorn/{folder}/{path.stem}", with_host(raw), expected)


def _probe_expects(entry: dict[str, str]) -> Expected:
    # What they want stands in words: "400 or close", "400 or 2xx", "2xx + echo". Only MUST is held against us.
    told, _, documented = entry["note"].partition(" | doc: ")
    verdict = told or documented.rpartition(" / ")[2] or documented
    if entry["expect"] != "Must":
        return Expected.ANYTHING
    refusals = ("400", "close", "501", "505", "timeout")
    if "2xx" not in verdict:
        return Expected.REFUSED if any(word in verdict for word in refusals) else Expected.ANYTHING
    return Expected.ANYTHING if any(word in verdict for word in ("400", "close (", "501")) else Expected.ACCEPTED


_REQUEST_LINE = re.compile(rb"^([!-~]+ [^\r\n]+ HTTP/1\.1\r\n)", re.MULTILINE)


def with_host(raw: bytes) -> bytes:
    """Give each HTTP/1.1 request a Host, where the source has none because it does not look at it."""
    return raw if b"\nhost:" in raw.lower() else _REQUEST_LINE.sub(rb"\1Host: localhost" + b"\r\n", raw)


def _whole_lines(raw: bytes) -> bytes:
    # The last empty line of each of llhttp's examples got lost when they were taken out of their Markdown.
    return raw + b"\r\n" if raw.endswith(b"\r\n") and not raw.endswith(b"\r\n\r\n") else raw


def _jsonl(source: str) -> Iterator[dict[str, str]]:
    path = CORPORA / f"{source}.jsonl"
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            yield json.loads(line)


def _bytes(entry: dict[str, str]) -> bytes:
    return entry["raw"].encode("latin-1").replace(b"{{host}}", HOST)


def _unique(entries: Iterable[Entry]) -> Iterator[Entry]:
    seen: Counter[str] = Counter()
    for entry in entries:
        seen[entry.name] += 1
        times = seen[entry.name]
        yield entry if times == 1 else entry._replace(name=f"{entry.name} #{times}")
