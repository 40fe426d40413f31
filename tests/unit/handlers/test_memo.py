"""What is remembered of heads: nothing that a new look at the same bytes would not give."""

import itertools
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyserver import limits
from pyserver.handlers.memo import Memo
from pyserver.http.request import Request, parse_head
from pyserver.http.response import Head, Response
from pyserver.http.scanner import Bounds

HEAD = b"GET /a?b HTTP/1.1\r\nHost: x\r\nCookie: c\r\n\r\n"


def head(line: bytes = b"GET / HTTP/1.1", *fields: bytes) -> bytes:
    return b"".join(part + b"\r\n" for part in (line, *(fields or (b"Host: x",)), b""))


@contextmanager
def held_below(most: int) -> Iterator[None]:
    """What is done meanwhile leaves fewer bytes than that behind."""
    tracemalloc.start()
    try:
        yield
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < most


def twice(memo: Memo, data: bytes) -> Request | None:
    """What comes twice is remembered; return what the second time gave."""
    memo.request(data)
    return memo.request(data)


def kept(memo: Memo, data: bytes, response: Response) -> bool:
    """Tell whether an answer that is given twice is there the third time."""
    request = parse_head(data)
    for _ in range(2):
        memo.keep(request, response, memo.second)
    return memo.answers.get(data) == (request, response)


@pytest.fixture
def memo() -> Memo:
    made = Memo(3 << 19)
    made.turn(1)
    return made


def meaning(request: Request | None) -> object:
    return None if request is None else {name: getattr(request, name) for name in Request.__slots__}


# -- what a head means -----------------------------------------------------------------------------------

LINES = st.sampled_from(
    [
        b"GET / HTTP/1.1",
        b"GET /a/b?c=d HTTP/1.1",
        b"HEAD /%41?? HTTP/1.1",
        b"GET /a?b?c HTTP/1.1",
        b"GET /a HTTP/1.0",
        b"GET /a HTTP/1.9",
        b"GET /a#b HTTP/1.1",
        b"GET  /a HTTP/1.1",
        b"GET http://other:8/a HTTP/1.1",
        b"GET http://other HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"OPTIONS / HTTP/1.1",
        b"POST / HTTP/1.1",
        b"CONNECT a:1 HTTP/1.1",
        b"GET /" + b"x" * limits.TARGET_MAX_BYTES + b" HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b"get / HTTP/1.1",
        b"",
        b"G\x00T / HTTP/1.1",
    ]
)
FIELDS = st.lists(
    st.sampled_from(
        [
            b"Host: x",
            b"host: Example.ORG.:80",
            b"Host: [::1]",
            b"Host: ",
            b"Connection: close",
            b"Connection: keep-alive, x",
            b"Content-Length: 0",
            b"Content-Length: 5",
            b"Transfer-Encoding: chunked",
            b"Expect: 100-continue",
            b"Expect: nonsense",
            b'If-None-Match: "a", W/"b"',
            b"Range: bytes=0-1",
            b"Accept-Encoding: gzip;q=0.5",
            b"Cookie: a=b",
            b"X : y",
            b" folded",
            b"Origin: null",
        ]
    ),
    max_size=6,
)


@settings(deadline=None, max_examples=400)
@given(
    lines=st.lists(LINES, min_size=1, max_size=4), fields=FIELDS, behind=st.sampled_from([b"", b"", b"GET ", b"\r\n"])
)
def test_what_is_remembered_is_what_the_whole_head_says(lines: list[bytes], fields: list[bytes], behind: bytes) -> None:
    """The short way agrees with the full one, or leaves the head to it."""
    memo = Memo(1 << 20)
    for line in lines * 3:  # each below the memory of those before it
        data = b"\r\n".join((line, *fields, b"", b"")) + behind
        short = memo.request(data)
        if short is not None:
            full = parse_head(data)
            assert meaning(short) == meaning(full)
            assert full.head == data


def test_a_section_that_is_known_is_not_read_again(memo: Memo) -> None:
    first = twice(memo, HEAD)
    other = memo.request(HEAD.replace(b"/a?b", b"/other"))
    assert first is not None
    assert other is not None
    assert other.fields is first.fields
    assert (other.path, other.query) == (b"/other", None)


@pytest.mark.parametrize(
    "data",
    [
        HEAD[:-1],
        HEAD + b"GET / HTTP/1.1\r\n",
        head(b"GET / HTTP/1.1", b"Host: x", b"Content-Length: 3"),
        head(b"GET / HTTP/1.1", b"Host: x", b"Transfer-Encoding: chunked"),
        head(b"GET / HTTP/1.1", b"No-Host: x"),
        b"\r\n" + HEAD,
    ],
    ids=["part", "more", "content", "chunked", "refused", "empty line"],
)
def test_what_is_not_one_whole_head_goes_the_full_way(memo: Memo, data: bytes) -> None:
    assert [memo.request(data) for _ in range(3)] == [None] * 3


def test_content_below_a_known_line_is_seen(memo: Memo) -> None:
    """A section is known only without content, so what follows a head is never taken for the next request."""
    for _ in range(3):
        assert memo.request(head(b"GET / HTTP/1.1", b"Host: x", b"Content-Length: 0")) is not None
        assert memo.request(head(b"GET / HTTP/1.1", b"Host: x", b"Content-Length: 1")) is None


# -- the answers of a second ---------------------------------------------------------------------------------


def test_an_answer_holds_for_its_second(memo: Memo) -> None:
    assert kept(memo, HEAD, Response(200, Head(b"answer")))
    memo.turn(2)
    assert not memo.answers
    memo.keep(parse_head(HEAD), Response(200, Head(b"of the second before")), 1)
    assert not memo.answers


@pytest.mark.parametrize("again", [True, False])
def test_an_answer_for_once_is_not_given_again(memo: Memo, again: bool) -> None:
    assert kept(memo, HEAD, Response(206, Head(b"boundary"), again=again)) is again


def test_what_is_sent_from_a_file_is_looked_at_each_time(memo: Memo, tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb+") as file:

        class Source:
            fd = file.fileno()

        assert not kept(memo, HEAD, Response(200, Head(b"head"), source=Source()))


def test_a_switch_of_the_root_ends_all_answers(memo: Memo) -> None:
    assert kept(memo, HEAD, Response(404, Head(b"not there")))
    memo.forget()
    assert not memo.answers
    assert kept(memo, HEAD, Response(200, Head(b"there")))


def test_a_worker_that_drains_remembers_nothing(memo: Memo) -> None:
    assert kept(memo, HEAD, Response(200, Head(b"answer")))
    memo.close()
    assert not memo.answers
    assert not kept(memo, HEAD, Response(200, Head(b"answer")))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (head(b"GET / HTTP/1.1", b"Host: a"), head(b"GET / HTTP/1.1", b"Host: b")),
        (head(b"GET / HTTP/1.1", b"Host: a"), head(b"HEAD / HTTP/1.1", b"Host: a")),
        (head(b"GET / HTTP/1.1", b"Host: a"), head(b"GET / HTTP/1.1", b"Host: a", b"Accept-Encoding: gzip")),
        (head(b"GET / HTTP/1.1", b"Host: a"), head(b"GET / HTTP/1.1", b"Host: a", b"Origin: b")),
        (head(b"GET / HTTP/1.1", b"Host: a"), head(b"GET / HTTP/1.1", b"Host: a", b"Connection: close")),
        (head(b"GET /a HTTP/1.1", b"Host: a"), head(b"GET /A HTTP/1.1", b"Host: a")),
    ],
    ids=["sites", "methods", "codings", "origins", "persistence", "paths"],
)
def test_what_differs_in_a_byte_shares_nothing(memo: Memo, one: bytes, other: bytes) -> None:
    """By their features: what may change an answer and stands in the head is in the key."""
    assert kept(memo, one, Response(200, Head(b"one")))
    assert memo.answers.get(other) is None
    assert meaning(twice(memo, other)) == meaning(parse_head(other))


# -- by line -------------------------------------------------------------------------------------------------

LINE = b"GET /a HTTP/1.1"


def by_line(memo: Memo, data: bytes) -> Response | None:
    """The answer to a head by its line and section, or, where there is none, nothing but what the head means."""
    response, request = memo.find(data)
    if response is not None:
        assert request is None
    else:
        assert meaning(request) == meaning(memo.request(data))
    return response


def told(memo: Memo, line: bytes, *fields: bytes) -> Response:
    """An answer that somebody holds, given by the full way to the second head of its section."""
    data = head(line, *fields)
    twice(memo, data)
    response = Response(200, Head(b"answer to " + data))
    memo.keep(parse_head(data), response, memo.second)
    return response


def test_sections_that_mean_the_same_share_the_answers_of_a_line(memo: Memo) -> None:
    answer = told(memo, LINE, b"Host: x", b"User-Agent: one", b"Accept-Encoding: gzip")
    other = (b"host:  X.", b"Accept-encoding: gzip", b"User-Agent: two", b"Cookie: c")
    assert by_line(memo, head(LINE, *other)) is None, "its section is not known"
    assert twice(memo, head(b"GET /b HTTP/1.1", *other)) is not None
    assert by_line(memo, head(LINE, *other)) is answer
    assert by_line(memo, head(b"GET /b HTTP/1.1", *other)) is None
    assert by_line(memo, head(LINE, *other) + b"GET") is None


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (LINE, (b"Host: y",)),
        (LINE, (b"Host: x", b"Accept-Encoding: gzip")),
        (LINE, (b"Host: x", b"Origin: null")),
        (LINE, (b"Host: x", b"Connection: close")),
        (LINE, (b"Host: x", b"Range: bytes=0-1")),
        (LINE, (b"Host: x", b'If-None-Match: "a"')),
        (b"HEAD /a HTTP/1.1", (b"Host: x",)),
        (b"GET /a HTTP/1.0", (b"Host: x",)),
        (b"GET /a? HTTP/1.1", (b"Host: x",)),
        (b"GET /%61 HTTP/1.1", (b"Host: x",)),
    ],
    ids=["host", "codings", "origin", "persistence", "range", "condition", "method", "version", "query", "path"],
)
def test_what_a_reader_could_tell_apart_shares_no_line(memo: Memo, line: bytes, fields: tuple[bytes, ...]) -> None:
    answer = told(memo, LINE, b"Host: x")
    twice(memo, head(line, *fields))
    assert by_line(memo, head(line, *fields)) is None
    assert by_line(memo, head(LINE, b"Host: x")) is answer


@pytest.mark.parametrize(
    "line", [b"GET /a HTTP/1.0", b"GET http://other/a HTTP/1.1", b"OPTIONS * HTTP/1.1"], ids=["1.0", "absolute", "*"]
)
def test_below_another_form_of_line_a_section_may_mean_something_else(memo: Memo, line: bytes) -> None:
    told(memo, LINE, b"Host: x", b"Connection: keep-alive")
    told(memo, LINE, b"Host: x")
    answer = told(memo, line, b"Host: x", b"Connection: keep-alive")
    assert by_line(memo, head(line, b"Host: x")) is None
    assert by_line(memo, head(line, b"Host: x", b"Connection: keep-alive")) is None
    assert answer.status == 200


def test_a_line_holds_no_answer_that_nobody_else_holds(memo: Memo) -> None:
    answer = told(memo, LINE, b"Host: x")
    assert by_line(memo, head(LINE, b"Host: x")) is answer
    del answer
    assert by_line(memo, head(LINE, b"Host: x")) is None
    again = told(memo, LINE, b"Host: x")
    assert by_line(memo, head(LINE, b"Host: x")) is again


@pytest.mark.parametrize("end", [lambda memo: memo.turn(2), Memo.forget, Memo.close], ids=["second", "switch", "drain"])
def test_answers_by_line_end_with_all_others(memo: Memo, end: Callable[[Memo], None]) -> None:
    answer = told(memo, LINE, b"Host: x")
    end(memo)
    assert by_line(memo, head(LINE, b"Host: x")) is None
    assert memo._sections._line_bytes == 0
    memo.keep(parse_head(head(LINE, b"Host: x")), answer, 1)
    assert (by_line(memo, head(LINE, b"Host: x")) is answer) is (end is Memo.forget)


def test_what_is_for_once_is_for_no_other_head(memo: Memo) -> None:
    request = twice(memo, head(LINE))
    assert request is not None
    for response in (
        Response(200, Head(b"answer"), again=False),
        Response(404, Head(b"not held by the cache of files")),
    ):
        memo.keep(request, response, memo.second)
        assert by_line(memo, head(LINE)) is None


def test_a_query_that_comes_once_takes_no_place(memo: Memo) -> None:
    line = b"GET /a?b HTTP/1.1"
    answer = told(memo, line)
    assert by_line(memo, head(line)) is None
    memo.keep(parse_head(head(line)), answer, memo.second)
    assert by_line(memo, head(line)) is answer


def test_a_head_that_keeps_coming_gets_a_place_of_its_own(memo: Memo) -> None:
    answer = told(memo, LINE, b"Host: x", b"Cookie: a")
    data = head(LINE, b"Host: x", b"Cookie: b")
    twice(memo, data)
    for _ in range(2):
        assert data not in memo.answers
        assert by_line(memo, data) is answer
    assert memo.answers[data][1] is answer
    assert meaning(memo.answers[data][0]) == meaning(parse_head(data))


def test_a_head_that_is_too_long_is_so_above_a_line_that_is_known() -> None:
    memo = Memo(1 << 20, Bounds(200, 100, 100))
    memo.turn(1)
    answer = told(memo, LINE, b"Host: x")
    longest = (
        b"Host: x",
        b"Cookie: " + bytes(200 - len(head(b"GET / HTTP/1.1", b"Host: x", b"Cookie: "))).replace(b"\0", b"c"),
    )
    assert twice(memo, head(b"GET / HTTP/1.1", *longest)) is not None
    assert by_line(memo, head(LINE, *longest)) is None
    assert by_line(memo, head(LINE, b"Host: x")) is answer


def test_endless_lines_stay_within_the_bytes() -> None:
    memo = Memo(3 << 20)
    memo.turn(1)
    answer = told(memo, LINE, b"Host: x")
    with held_below(2 << 20):
        for number in range(30_000):
            request = memo.request(head(b"GET /%d HTTP/1.1" % number, b"Host: x"))
            assert request is not None
            memo.keep(request, answer, 1)
        del request
    assert by_line(memo, head(b"GET /9 HTTP/1.1", b"Host: x")) is answer
    assert by_line(memo, head(b"GET /29999 HTTP/1.1", b"Host: x")) is None
    memo.turn(2)
    memo.keep(parse_head(head(b"GET /29999 HTTP/1.1", b"Host: x")), answer, 2)
    assert by_line(memo, head(b"GET /29999 HTTP/1.1", b"Host: x")) is answer


@pytest.mark.parametrize("size", [10, 1000, 6000])
def test_endless_meanings_stay_within_the_bytes(size: int) -> None:
    """Each section means something else, is answered, and makes room for the next: nothing of it is held."""
    memo = Memo(3 << 20)
    memo.turn(1)
    answer = Response(200, Head(b"answer"))
    with held_below(4 << 20):
        for number in range(4000):
            data = head(LINE, b"Host: x", b"Range: " + b"r" * size + b"%d" % number)
            request = twice(memo, data)
            assert request is not None
            memo.keep(request, answer, 1)
        del request
    assert by_line(memo, data) is answer


def test_a_line_that_is_too_long_takes_no_place(memo: Memo) -> None:
    answer = told(memo, b"GET /%b HTTP/1.1" % (b"./" * 400))
    assert by_line(memo, head(b"GET /%b HTTP/1.1" % (b"./" * 400))) is None
    assert answer.status == 200


def test_a_worker_that_drains_learns_nothing(memo: Memo) -> None:
    memo.close()
    first, second = twice(memo, HEAD), memo.request(HEAD)
    assert first is not None
    assert second is not None
    assert first.fields is not second.fields
    assert not len(memo._sections)


def test_what_sections_mean_goes_with_the_last_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MEMO_ENTRIES_MAX", 2)
    memo = Memo(1 << 20)
    memo.turn(1)
    for number in range(5):
        assert twice(memo, head(LINE, b"Host: x%d" % number)) is not None
    assert len(memo._sections) == len(memo._sections._by_meaning) == 2


# -- bounds --------------------------------------------------------------------------------------------------


def weigh(memo: Memo) -> int:
    """What the memo holds, counted anew."""
    wires = {response: len(response.wire) for _, response in memo.answers.values()}
    requests = [request for request, _ in memo.answers.values()]
    copies = sum(2 * len(request.target) + sum(map(len, request.fields.values())) for request in requests)
    return sum(map(len, memo.answers)) + copies + sum(wires.values())


def test_endless_new_heads_take_no_place() -> None:
    memo = Memo(1 << 20)
    memo.turn(1)
    answer = Response(200, Head(b"answer"))
    with held_below(4 << 20):  # hashes
        for number in range(3 * limits.MEMO_ENTRIES_MAX):
            data = head(b"GET /?%d HTTP/1.1" % number, b"Host: x", b"Cookie: %d" % number)
            request = memo.request(data)
            assert request is not None
            memo.keep(request, answer, 1)
        del request
    assert not memo.answers
    assert not memo._sections


def test_endless_new_heads_that_come_twice_stay_within_the_bytes() -> None:
    memo = Memo(1 << 20)
    memo.turn(1)
    with held_below(4 << 20):
        for number in range(8000):
            data = head(b"GET /%d HTTP/1.1" % number, b"Host: x", b"Cookie: %d" % number)
            request = twice(memo, data)
            assert request is not None
            assert kept(memo, data, Response(200, Head(b"%d" % number + bytes(200))))
        del request
    assert len(memo.answers) > 100
    assert weigh(memo) < 1 << 19


def test_one_goes_for_one_that_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MEMO_ENTRIES_MAX", 4)
    memo = Memo(1 << 20)
    memo.turn(1)
    heads = [head(b"GET /%d HTTP/1.1" % number, b"Host: x", b"Cookie: %d" % number) for number in range(6)]
    for data in heads:
        assert twice(memo, data) is not None
        assert kept(memo, data, Response(200, Head(b"answer")))
    assert list(memo.answers) == heads[2:]
    assert len(memo._sections) == 4


def test_an_answer_that_many_share_counts_once(memo: Memo) -> None:
    shared = Response(200, Head(bytes(400_000)))
    heads = [head(b"GET / HTTP/1.1", b"Host: x", b"Cookie: %d" % number) for number in range(50)]
    assert all(kept(memo, data, shared) for data in heads)
    assert list(memo.answers) == heads
    assert not kept(memo, HEAD, Response(200, Head(bytes(600_000))))
    # Another one of that size pushes all of them out, and then there is room for it.
    assert kept(memo, HEAD, Response(200, Head(bytes(300_000))))
    assert list(memo.answers) == [HEAD]
    assert kept(memo, heads[0], Response(200, Head(bytes(100_000))))


def test_without_memory_nothing_is_remembered() -> None:
    memo = Memo(0)
    memo.turn(1)
    first, second = twice(memo, HEAD), memo.request(HEAD)
    assert first is not None
    assert second is not None
    assert first.fields is not second.fields
    assert not kept(memo, HEAD, Response(200, Head(b"answer")))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4), st.booleans()), max_size=80))
def test_the_bytes_that_are_counted_are_those_that_are_held(steps: list[tuple[int, int, bool]]) -> None:
    memo = Memo(13_500)
    memo.turn(1)
    shared = [Response(200, Head(bytes(300 * size))) for size in range(5)]
    seconds = itertools.count(2)
    for number, size, turns in steps:
        data = head(b"GET /%d HTTP/1.1" % number)
        kept(memo, data, shared[size])
        entries = len(memo.answers)
        assert memo._answer_bytes == weigh(memo) + entries * 700
        assert memo._answer_bytes <= 4500
        if turns and number == 0:
            memo.turn(next(seconds))
            assert memo._answer_bytes == 0
