"""A memo from the bytes of a request head to what they mean, and for one second to the answer.

Owns:    which heads were seen, what they mean, and the answers of this second; bounded in entries and in bytes.
Never:   decides, parses in a way of its own, or looks at the disk: what it returns is what the full way returned.
Fails:   never. What it does not know it answers with None, and the caller goes the full way.
Used by: worker.connection (asks and tells), handlers.static (says when a release was switched).

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

A section, all field lines of a head with the empty line, means the same below every request line in origin-form of
HTTP/1.1, so that is remembered for longer than a second: it is a pure function of the bytes. Sections with content,
expectations or another version go the full way, and so does every line that is not plainly a GET or HEAD of a path.
"""

from collections import OrderedDict
from typing import Final

from pyserver import limits
from pyserver.http.request import Request, Section, only_head, plain
from pyserver.http.response import Response
from pyserver.http.scanner import USUAL, Bounds

# Beside its bytes an entry is a tuple, a Request with what it holds, and a place in the order (tracemalloc: 700).
_ENTRY_BYTES: Final = 700


class Memo:
    """What one worker remembers of heads. Only its leader touches it."""

    __slots__ = (
        "_answer_bytes",
        "_asked",
        "_holders",
        "_max_bytes",
        "_met",
        "_section_bytes",
        "_sections",
        "answers",
        "bounds",
        "second",
    )

    def __init__(self, max_bytes: int, bounds: Bounds = USUAL) -> None:
        """Hold so many bytes at most, half for answers and half for sections; none: everything goes the full way."""
        self.bounds = bounds  # of heads: those of the full way too, which takes them from here
        self._max_bytes = max_bytes // 2
        self.second = -1  # of the answers; whoever reads them compares, and calls turn()
        # For the caller to look into, for a call would cost as much as the look.
        self.answers: OrderedDict[bytes, tuple[Request, Response]] = OrderedDict()
        self._answer_bytes = 0
        self._holders: dict[Response, int] = {}  # how many heads share an answer, whose bytes count once
        self._sections: OrderedDict[bytes, Section] = OrderedDict()
        self._section_bytes = 0
        self._asked: set[int] = set()  # hashes of the heads that came in this second
        self._met: set[int] = set()  # hashes of sections that came

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

    def close(self) -> None:
        """Remember nothing from now on."""
        self._max_bytes = 0
        self.forget()

    def request(self, data: bytes) -> Request | None:
        """Return the request that `data` is, if it is one whole head without content; None: go the full way."""
        line, _, fields = data.partition(b"\r\n")
        known = self._sections.get(fields)
        if known is not None:
            return plain(line, known, data, self.bounds)
        request = only_head(data, self.bounds)
        if request is not None and not _is_new(fields, self._met):
            self._learn(fields, request)
        return request

    def _learn(self, key: bytes, request: Request) -> None:
        """Remember what the section of a head means, if the line above it does not matter for that."""
        section = Section.of(request)
        weight = len(key) + _ENTRY_BYTES
        if section is None or weight > self._max_bytes:
            return
        self._sections[key] = section
        self._section_bytes += weight
        while self._section_bytes > self._max_bytes or len(self._sections) > limits.MEMO_ENTRIES_MAX:
            oldest, _ = self._sections.popitem(last=False)
            self._section_bytes -= len(oldest) + _ENTRY_BYTES

    def keep(self, request: Request, response: Response, second: int) -> None:
        """Hold the answer that the full way gave to this head in this second, if it is one that may be given again."""
        if second != self.second or not response.again or request.has_body or _is_new(request.head, self._asked):
            return
        weight = len(request.head) + _ENTRY_BYTES + len(response.wire)
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
        head, (_, response) = self.answers.popitem(last=False)
        self._answer_bytes -= len(head) + _ENTRY_BYTES
        holders = self._holders[response] - 1
        if holders:
            self._holders[response] = holders
        else:
            del self._holders[response]
            self._answer_bytes -= len(response.wire)


def _is_new(what: bytes, met: set[int]) -> bool:
    """Tell whether this was not met lately. What comes once, a cookie that counts, is not worth a place."""
    number = hash(what)
    if number in met:
        return False
    if len(met) >= limits.MEMO_ENTRIES_MAX:
        met.clear()
    met.add(number)
    return True
