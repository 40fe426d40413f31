"""What the field sections of heads mean, and by it this second's answers to heads that were never seen.

Owns:    which sections were seen, what they mean, and for one second which answer each request line has above them;
         bounded in entries and in bytes.
Never:   decides, or holds an answer: it names those that the file cache holds ready, and forgets them with it.
Fails:   never. What it does not know it answers with None, and the caller goes the full way.
Used by: handlers.memo (which says when a second ends, a release is switched, or the worker drains).

Why this is sound. A section, all field lines of a head with the empty line, means the same below every request line in
origin-form of HTTP/1.1, so that is remembered for longer than a second: it is a pure function of the bytes. Sections
with content, expectations or another version go the full way, and so does every line that is not plainly a GET or HEAD
of a path.

So an answer is the same for all heads of one request line above sections that mean the same: browsers that differ in
User-Agent, Referer and cookies. For how long, and what else may change it, is said in handlers.memo.
"""

from collections import OrderedDict
from typing import Final
from weakref import WeakValueDictionary, ref

from pyserver import limits
from pyserver.http.request import Request, Section, only_head, plain
from pyserver.http.response import Response
from pyserver.http.scanner import Bounds

# Beside its bytes, by measurement (tracemalloc): a section that means what no other does, 1,000; another one, 110.
_SECTION_BYTES: Final = 1000
_LINE_BYTES: Final = 200  # beside its bytes a request line is an object, a place and a weak reference
# Nobody's address is longer, and some hundred that are would take all the room.
_LINE_MAX_BYTES: Final = 512


class _Meaning:
    """What sections that mean the same mean, and this second's answers to the request lines above them."""

    __slots__ = ("__weakref__", "answers", "own_bytes", "section")

    def __init__(self, section: Section) -> None:
        self.section = section
        # Counted for each section that shares it, as if it had one of its own: so it is for the last one too.
        self.own_bytes = _SECTION_BYTES + sum(map(len, section.fields.values()))
        self.answers: dict[bytes, ref[Response]] = {}


class Sections:
    """What one worker remembers of sections. Only its leader touches it."""

    __slots__ = ("_answered", "_bounds", "_by_bytes", "_by_meaning", "_bytes", "_line_bytes", "_max_bytes", "_met")

    def __init__(self, max_bytes: int, bounds: Bounds) -> None:
        """Hold so many bytes at most of sections, and as many of lines; none: remember nothing."""
        self._bounds = bounds
        self._max_bytes = max_bytes
        self._by_bytes: OrderedDict[bytes, _Meaning] = OrderedDict()
        self._bytes = 0
        self._by_meaning: WeakValueDictionary[object, _Meaning] = WeakValueDictionary()
        self._answered: list[ref[_Meaning]] = []  # those that have answers; they go with the last of their sections
        self._line_bytes = 0
        self._met: set[int] = set()  # hashes of sections that came

    def __len__(self) -> int:
        return len(self._by_bytes)

    def forget(self) -> None:
        """Let go of all answers."""
        for answered in self._answered:
            meaning = answered()
            if meaning is not None:
                meaning.answers.clear()
        self._answered.clear()
        self._line_bytes = 0

    def close(self) -> None:
        """Learn nothing from now on, and let go of all answers."""
        self._max_bytes = 0
        self.forget()

    def request(self, data: bytes) -> Request | None:
        """Return the request that `data` is, if it is one whole head without content; None: go the full way."""
        line, _, fields = data.partition(b"\r\n")
        known = self._by_bytes.get(fields)
        if known is not None:
            return plain(line, known.section, data, self._bounds)
        return self._read(data, fields)

    def find(self, data: bytes) -> tuple[Response | None, Request | None]:
        """Return this second's answer to `data` if there is one, else what request() does."""
        line, _, fields = data.partition(b"\r\n")
        known = self._by_bytes.get(fields)
        if known is None:
            return None, self._read(data, fields)
        if line in known.answers and len(data) <= self._bounds.head_bytes:
            answer = known.answers[line]()
            if answer is not None:
                return answer, None
        return None, plain(line, known.section, data, self._bounds)

    def _read(self, data: bytes, fields: bytes) -> Request | None:
        """Read a head whose section is not known, and make it known when it comes a second time."""
        request = only_head(data, self._bounds)
        if request is not None and not is_new(fields, self._met, limits.MEMO_ENTRIES_MAX):
            self._learn(fields, request)
        return request

    def _learn(self, fields: bytes, request: Request) -> None:
        """Remember what the section of a head means, if the line above it does not matter for that."""
        section = Section.of(request)
        if section is None:
            return
        same = (section.host, section.keep_alive, *sorted(section.fields.items()))
        meaning = self._by_meaning.get(same) or _Meaning(section)
        weight = len(fields) + meaning.own_bytes
        if weight > self._max_bytes:
            return
        self._by_meaning[same] = self._by_bytes[fields] = meaning
        self._bytes += weight
        while self._bytes > self._max_bytes or len(self._by_bytes) > limits.MEMO_ENTRIES_MAX:
            oldest, meaning = self._by_bytes.popitem(last=False)
            self._bytes -= len(oldest) + meaning.own_bytes

    def keep(self, request: Request, response: Response) -> None:
        """Let all heads of this line have this answer whose sections mean what this one's does, if it is known.

        When there is no more room for lines, there is some again in the next second.
        """
        line, _, fields = request.head.partition(b"\r\n")
        meaning = self._by_bytes.get(fields)
        weight = len(line) + _LINE_BYTES
        if meaning is None or Section.of(request) is None or len(line) > _LINE_MAX_BYTES:
            return
        if self._line_bytes + weight > self._max_bytes:
            return
        if not meaning.answers:
            self._answered.append(ref(meaning))
        if line not in meaning.answers:
            self._line_bytes += weight
        meaning.answers[line] = ref(response)


def is_new(what: bytes, met: set[int], most: int) -> bool:
    """Tell whether this was not met lately. What comes once, a cookie that counts, is not worth a place.

    `met`: hashes of what was, so many at `most`.
    """
    number = hash(what)
    if number in met:
        return False
    if len(met) >= most:
        met.clear()
    met.add(number)
    return True
