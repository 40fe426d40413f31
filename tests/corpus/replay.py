"""Replay a client's bytes, cut in any way, and tell what the server would make of them."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pyserver.http import target
from pyserver.http.errors import ProtocolError
from pyserver.http.reader import RequestReader


class Exchange(NamedTuple):
    """One request as the server saw it, and the position in the stream where its content ended."""

    method: bytes
    target: bytes
    path: bytes | int  # cleaned, or the status that the path is answered with
    host: bytes
    minor: int
    keep_alive: bool
    length: int
    chunked: bool
    fields: tuple[tuple[bytes, bytes], ...]
    end: int | None  # None: its content never came to its end


class Outcome(NamedTuple):
    exchanges: tuple[Exchange, ...]
    status: int | None  # that ends the connection
    started: bool  # something incomplete is here at the end

    @property
    def word(self) -> str:
        if self.status is not None or any(isinstance(exchange.path, int) for exchange in self.exchanges):
            return "refused"
        return "incomplete" if self.started or not self.exchanges else "accepted"


def replay(parts: Iterable[bytes]) -> Outcome:
    """Receive `parts` one by one, as worker.connection does, until the connection would end."""
    reader = RequestReader()
    exchanges: list[Exchange] = []
    received = 0
    in_content = False
    keep_alive = True
    try:
        for part in parts:
            if not keep_alive and not in_content:
                break
            reader.feed(part)
            received += len(part)
            while True:
                if in_content:
                    if not reader.discard_body():
                        break
                    in_content = False
                    exchanges[-1] = exchanges[-1]._replace(end=received - len(reader.pending))
                if not keep_alive:
                    return Outcome(tuple(exchanges), None, started=False)
                request = reader.next()
                if request is None:
                    break
                keep_alive = request.keep_alive
                in_content = request.has_body
                exchanges.append(
                    Exchange(
                        request.method,
                        request.target,
                        _cleaned(request.path),
                        request.host,
                        request.minor,
                        request.keep_alive,
                        request.length,
                        request.chunked,
                        tuple(sorted(request.fields.items())),
                        None if in_content else received - len(reader.pending),
                    )
                )
    except ProtocolError as error:
        assert error.close  # noqa: PT017  # the reader cannot go on after any error of its own
        return Outcome(tuple(exchanges), error.status, started=False)
    return Outcome(tuple(exchanges), None, started=reader.started)


def _cleaned(path: bytes) -> bytes | int:
    if not path.startswith(b"/"):
        return path
    try:
        return target.clean(path)
    except ProtocolError as error:
        assert not error.close  # noqa: PT017  # the framing of the request was good
        return error.status


CUTS_MAX = 400


def chunkings(data: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Every way in which an entry is replayed; of a long one, the cuts near its ends and around its line ends."""
    yield "byte by byte", [data[i : i + 1] for i in range(len(data))]
    yield "lines", data.splitlines(keepends=True)
    cuts = range(1, len(data))
    chosen: Iterable[int] = cuts
    if len(cuts) > CUTS_MAX:
        near_ends = {*cuts[:100], *cuts[-100:]}
        near_lines = [at + by for at, byte in enumerate(data) if byte in b"\r\n" for by in (0, 1)]
        chosen = sorted(near_ends | {cut for cut in near_lines[: CUTS_MAX // 2] if cut in cuts})
    for cut in chosen:
        yield f"cut at {cut}", [data[:cut], data[cut:]]
