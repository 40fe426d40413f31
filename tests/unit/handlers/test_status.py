"""What the listener for administrators answers, over a real segment."""

import json
import sys
from collections.abc import Iterator

import pytest
from tests.unit.processes import forked, wait_until

from pyserver.clock import Clock
from pyserver.handlers.static import Pending
from pyserver.handlers.status import Status
from pyserver.http.request import parse_head
from pyserver.http.response import Response
from pyserver.ipc.observe import snapshot
from pyserver.ipc.segment import HEADER, Segment
from pyserver.ipc.stats import Tally
from pyserver.master.supervisor import State


@pytest.fixture
def segment() -> Iterator[Segment]:
    """A server with one worker, which is ready."""
    made = Segment.private(2)
    words = made.words
    words[HEADER["crew"]] = words[made.row(0, "crew")] = words[made.row(0, "pid")] = 1
    words[made.row(0)] = State.READY
    tally = Tally()
    tally.requests = 123
    tally.publish(words, made.counters(0))
    yield made
    made.close()


class Site:
    """The handler, as a connection uses it."""

    def __init__(self, segment: Segment, *, any_name: bool = False) -> None:
        self.status = Status(lambda: snapshot(segment), Clock(), any_name=any_name)

    def ask(
        self, target: str, *fields: str, host: str = "localhost", method: str = "GET", keep: bool = True
    ) -> tuple[int, dict[str, str], str]:
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *fields, "", ""]
        answer = self.status.respond(parse_head("\r\n".join(lines).encode()), keep)
        if isinstance(answer, Pending):
            todo = []
            answer.begin(lambda run, _then: todo.append(run), lambda: None)
            todo.pop()()
            answer = answer.finish()
        assert isinstance(answer, Response)
        assert not answer.again, "it would be in the memo, and so at other listeners"
        assert answer.close is not keep
        head, _, content = answer.wire.decode().partition("\r\n\r\n")
        _, *rest = head.split("\r\n")
        assert answer.content_bytes == len(content.encode())
        return answer.status, dict(line.split(": ", 1) for line in rest), content


@pytest.fixture
def site(segment: Segment) -> Site:
    return Site(segment)


@pytest.mark.parametrize("path", ["/", "/metrics", "/status.json", "/healthz", "/readyz", "/nothing"])
@pytest.mark.parametrize("keep", [True, False])
def test_what_every_answer_says(site: Site, path: str, keep: bool) -> None:
    status, fields, content = site.ask(path, keep=keep)
    assert status == (404 if path == "/nothing" else 200)
    assert fields["Cache-Control"] == "no-store"
    assert fields["X-Content-Type-Options"] == "nosniff"
    assert int(fields["Content-Length"]) == len(content.encode()) > 0
    assert "Date" in fields
    head_status, head_fields, nothing = site.ask(path, method="HEAD", keep=keep)
    assert (head_status, nothing) == (status, "")
    assert head_fields["Content-Type"] == fields["Content-Type"]


def test_status_json_is_the_document_of_the_command(site: Site) -> None:
    _, fields, content = site.ask("/status.json")
    assert fields["Content-Type"] == "application/json"
    assert json.loads(content)["totals"]["requests"] == 123


def test_metrics_are_in_the_form_that_is_asked_for(site: Site) -> None:
    _, fields, content = site.ask("/metrics")
    assert fields["Content-Type"].startswith("text/plain; version=0.0.4")
    assert "\npyserver_requests_total 123.0\n" in content
    _, fields, content = site.ask("/metrics", "accept:application/openmetrics-text; version=1.0.0,text/plain;q=0.5")
    assert fields["Content-Type"].startswith("application/openmetrics-text")
    assert content.endswith("\n# EOF\n")


def test_without_the_library_it_says_what_is_missing(segment: Segment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyserver.handlers.metrics", None)
    status, _, content = Site(segment).ask("/metrics")
    assert status == 501
    assert "python3-prometheus-client" in content


def test_ready_or_why_not(site: Site, segment: Segment) -> None:
    assert site.ask("/readyz")[::2] == (200, "ready\n")
    segment.words[segment.row(0)] = State.KILLED
    assert site.ask("/readyz")[::2] == (503, "not ready: 0 of 1 workers are ready\n")
    segment.words[segment.row(0)] = State.READY
    segment.words[HEADER["master_state"]] = 1
    assert site.ask("/readyz")[::2] == (503, "not ready: the server is stopping\n")
    assert site.ask("/healthz")[::2] == (200, "alive\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_it_can_only_be_read(site: Site, method: str) -> None:
    status, fields, _ = site.ask("/metrics", method=method)
    assert (status, fields["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9180", "localhost.", "127.0.0.1:80", "[::1]:80", "192.0.2.7"])
def test_who_asks_for_an_address_is_answered(site: Site, host: str) -> None:
    assert site.ask("/healthz", host=host)[0] == 200


@pytest.mark.parametrize(
    "host", ["rebound.example", "localhost.rebound.example", "127.0.0.1.rebound.example", "127.1", "0x7f000001", "a"]
)
@pytest.mark.parametrize("path", ["/", "/status.json", "/nothing"])
def test_who_asks_for_a_name_is_not(site: Site, segment: Segment, host: str, path: str) -> None:
    """A browser that was led here by DNS asks for the name that led it."""
    status, _, content = site.ask(path, host=host)
    assert status == 421
    assert "123" not in content
    assert site.ask(f"http://{host}{path}", host="localhost")[0] == 421, "what counts is whom the target names"
    assert Site(segment, any_name=True).ask(path, host=host)[0] in (200, 404)


def test_a_master_that_stopped_in_a_fold_holds_up_a_thread_and_not_the_leader(site: Site, segment: Segment) -> None:
    segment.words[HEADER["fold"]] = 1
    assert isinstance(
        site.status.respond(parse_head(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"), True), Pending
    )


def test_a_bug_is_raised_where_the_answer_is_taken(segment: Segment) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    site = Site(segment)
    site.status._look = broken  # type: ignore[assignment]
    with pytest.raises(ZeroDivisionError):
        site.ask("/status.json")


def test_nothing_is_written_into_the_segment(site: Site, segment: Segment) -> None:
    before = segment.words.tolist()
    for path in ("/metrics", "/status.json", "/readyz"):
        site.ask(path)
    assert segment.words.tolist() == before


def test_a_look_while_a_worker_counts(site: Site, segment: Segment) -> None:
    def count() -> None:
        tally = Tally()
        tally.attach(segment.words, segment.counters(1))
        while True:
            tally.requests += 1
            tally.took(5_000)
            tally.publish(segment.words, segment.counters(1))

    with forked(count):
        wait_until(lambda: json.loads(site.ask("/status.json")[2])["totals"]["requests"] > 200)
        assert site.ask("/metrics")[0] == 200
