r"""The access log as JSON: one object a line, whatever the client sent (docs/logs.md has the fields).

Owns:    which fields a line has, and how bytes become text.
Never:   has Authorization, Cookie or any other field of a request than those that docs/logs.md names.
Used by: worker.main (opens it in place of an AccessLog).

A line is ASCII, so also UTF-8, and neither ends early nor drives a terminal (T-42): what is not harmless stands as an
escape of JSON. What a client sends is bytes, and text to JSON is characters: bytes that are no UTF-8 become \xHH, and a
backslash becomes \x5c, so that no two requests read the same.
"""

import json
import re
import time
from typing import Final

from pyserver.clock import Clock
from pyserver.http.headers import field
from pyserver.worker.accesslog import AccessLog, Details, first_line

# With the quotation marks around it.
_quoted: Final = json.JSONEncoder(ensure_ascii=True).encode

_LINE: Final = re.compile(rb"([^ ]+) ([^ ]+) (HTTP/[0-9]\.[0-9])")

# Fields of a request, in the order of the line.
_FIELDS: Final = (("host", b"host"), ("referer", b"referer"), ("user_agent", b"user-agent"))


def text(value: bytes) -> str:
    """Return bytes as text that tells them apart from all others."""
    return value.replace(b"\\", rb"\x5c").decode("utf-8", "backslashreplace")


class JsonLog(AccessLog):
    """The log of one worker."""

    detailed = True

    def __init__(self, path: str, clock: Clock, slot: int) -> None:
        super().__init__(path, clock)
        self._end = f',"worker":{slot}}}\n'

    @staticmethod
    def _stamp_of(second: int) -> bytes:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second)).encode()

    def _line(
        self, stamp: bytes, peer: bytes, head: bytes, status: int, content_bytes: int, details: Details | None
    ) -> bytes:
        first = first_line(head)
        parts = [f'{{"time":"{stamp.decode()}","client":{_quoted(text(peer))}']
        line = _LINE.fullmatch(first)
        if line is not None:
            method, target, protocol = line.groups()
            parts.append(
                f',"method":{_quoted(text(method))},"target":{_quoted(text(target))},"protocol":"{protocol.decode()}"'
            )
        else:  # it is no request
            parts.append(f',"request":{_quoted(text(first))}')
        parts.append(f',"status":{status},"bytes":{content_bytes}')
        if len(first) < len(head):
            for name, of in _FIELDS:
                value = field(head, of)
                if value is not None:
                    parts.append(f',"{name}":{_quoted(text(value))}')
        if details is not None:
            if details.request_id:
                parts.append(f',"request_id":{_quoted(text(details.request_id))}')
            if details.duration_ns is not None:
                parts.append(f',"duration_us":{details.duration_ns // 1000}')
            if details.waited_ns is not None:
                parts.append(f',"queue_us":{details.waited_ns // 1000}')
        parts.append(self._end)
        return "".join(parts).encode("ascii")
