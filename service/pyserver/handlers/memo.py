"""A memo from the bytes of a request head to what they mean, and for one second to the answer.

Owns:    which heads were seen, what they mean, and the answers of this second; bounded in entries and in bytes.
Never:   decides, parses in a way of its own, or looks at the disk: what it returns is what the full way returned.
Fails:   never. What it does not know it answers with None, and the caller goes the full way.
Used by: worker.main (makes it, and has sites say when a release was switched), worker.connection (asks and tells).

Why this is sound. All that a client can say to change its answer stands in the bytes of its head, and the whole of them
is the key: two requests share an entry only when no reader could tell them apart. What may change an answer and is
not in those bytes:

- the state of the files, and the Date: an answer is kept for the second in which the full way made it, in which the
  full way would take the same file for unchanged too (Entry.looked_at, Entry.plain_at). So a change is seen
  after at most one tick, as without the memo;
- a file that is sent from its descriptor, which is looked at before each answer, and the boundary of a multipart, which
  no two answers share: such answers say that they are for once (Response.again);
- the release that a root leads to: forget() when a switch is seen;
- the worker's end, after which answers say `Connection: close`: close() when it begins to drain;
- content: what follows a head that announces some is not the next request, so such heads are never kept;
- the method: answers to others than GET are not kept (worker.connection counts by method where it parses);
- the listener: who comes by one at which something else answers than the sites is not looked up here, nor kept;
- which request of its connection it is (limits.requests): the last one is not looked up here, nor is its answer kept;
- the client's address: no answer depends on it. Limits by address (worker.admission) are applied before an answer from
  here is sent, and who the client behind a proxy is, is found outside of here (worker.proxies): once for a connection,
  before its first head, or for each request out of its head, to limit it and to write it down, no more. What an answer
  says of one request only, its name and how long it took (worker.tracing), gets into a copy of it. Whatever else
  comes to depend on it belongs before the memo too, or into its key; the table in its tests lists what was thought of.

What comes for the first time (an answer: in its second) is not kept, only its hash, so a client that sends ever new
heads costs others nothing. A hash that two heads share keeps one of them a request too early, and nothing else: keys
are bytes.

Heads that differ only in what no answer depends on share an answer, by their request line and what stands below it:
handlers.sections, whose answers begin and end with those here. A head that keeps coming gets a place here all the same:
one look instead of two.
"""

from collections import OrderedDict
from typing import Final

from pyserver import limits
from pyserver.handlers.sections import Sections, is_new
from pyserver.http.request import Request
from pyserver.http.response import Response
from pyserver.http.scanner import USUAL, Bounds

# Beside its bytes an entry is a tuple, a Request with what it holds, and a place in the order (tracemalloc: 700).
_ENTRY_BYTES: Final = 700
# A head that was answered by its line and comes again before so many others is one that keeps coming.
_SHORTLY: Final = 1024


class Memo:
    """What one worker remembers of heads. Only its leader touches it."""

    __slots__ = (
        "_answer_bytes",
        "_asked",
        "_holders",
        "_max_bytes",
        "_sections",
        "_told",
        "answers",
        "bounds",
        "request",
        "second",
    )

    def __init__(self, max_bytes: int, bounds: Bounds = USUAL) -> None:
        """Hold so many bytes at most, a third each for heads, sections and lines; none: all goes the full way."""
        self.bounds = bounds  # of heads: those of the full way too, which takes them from here
        self._max_bytes = max_bytes // 3
        self.second = -1  # of the answers; whoever reads them compares, and calls turn()
        # For the caller to look into, for a call would cost as much as the look.
        self.answers: OrderedDict[bytes, tuple[Request, Response]] = OrderedDict()
        self._answer_bytes = 0
        self._holders: dict[Response, int] = {}  # how many heads share an answer, whose bytes count once
        self._asked: set[int] = set()  # hashes of the heads that came in this second
        self._told: set[int] = set()  # hashes of those that were answered by their line
        self._sections = Sections(self._max_bytes, bounds)
        self.request: Final = self._sections.request  # what a head means, if the short way can tell

    def turn(self, second: int) -> None:
        """Begin another second."""
        self.second = second
        self.forget()

    def forget(self) -> None:
        """Let go of all answers."""
        self.answers.clear()
        self._holders.clear()
        self._asked.clear()
        self._answer_bytes = 0
        self._sections.forget()

    def close(self) -> None:
        """Remember nothing from now on."""
        self._max_bytes = 0
        self._sections.close()
        self.forget()

    def find(self, data: bytes) -> tuple[Response | None, Request | None]:
        """Return this second's answer to a head that has no place here, by its line and section, or what it means.

        Neither: go the full way.
        """
        found = self._sections.find(data)
        response, _ = found
        if response is not None and not is_new(data, self._told, _SHORTLY):
            request = self.request(data)
            if request is not None:
                self._keep(request, response)
        return found

    def keep(self, request: Request, response: Response, second: int) -> None:
        """Hold the answer that the full way gave to this head in this second, if it is one that may be given again."""
        if second != self.second or not response.again or request.has_body or not self._max_bytes:
            return
        new = is_new(request.head, self._asked, limits.MEMO_ENTRIES_MAX)
        # A query that comes once is worth no place; and only answers of 200 are held by the file cache.
        if response.status == 200 and not (new and request.query):
            self._sections.keep(request, response)
        if not new:
            self._keep(request, response)

    def _keep(self, request: Request, response: Response) -> None:
        weight = _bytes_of(request) + len(response.wire)
        if weight > self._max_bytes or request.head in self.answers:
            return
        self.answers[request.head] = (request, response)
        holders = self._holders.get(response, 0)
        self._holders[response] = holders + 1
        self._answer_bytes += weight - len(response.wire) if holders else weight
        while self._answer_bytes > self._max_bytes or len(self.answers) > limits.MEMO_ENTRIES_MAX:
            self._evict()

    def _evict(self) -> None:
        """Drop the oldest answer, and what it holds if no other head holds that too."""
        _, (request, response) = self.answers.popitem(last=False)
        self._answer_bytes -= _bytes_of(request)
        holders = self._holders[response] - 1
        if holders:
            self._holders[response] = holders
        else:
            del self._holders[response]
            self._answer_bytes -= len(response.wire)


def _bytes_of(request: Request) -> int:
    """Return what an entry takes but for the answer: of a head there are copies of the target, whole and in parts."""
    return _ENTRY_BYTES + len(request.head) + 2 * len(request.target) + sum(map(len, request.fields.values()))
