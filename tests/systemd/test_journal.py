"""Everything is told: by the journal with its fields and catalog, by the access log, and never at a client's cost."""

from itertools import count

import pytest
from tests.systemd.image import SUITES
from tests.systemd.machine import wait_until
from tests.systemd.service import CONFIG, Service, journal_stopped

from pyserver.sd.events import EVENTS

pytestmark = [
    pytest.mark.systemd,
    pytest.mark.timeout(600),  # the first one may have to build the machine
    pytest.mark.parametrize("suite", SUITES, indirect=True, scope="session"),
]

EVENT = {event.name: event for event in EVENTS}
LOG = "/var/log/pyserver/access.log"


def asked(service: Service, number: int, name: str) -> list[str]:
    """Return the statuses of so many requests for what is not there, on one connection."""
    curl = ("curl", "--silent", "--output", "/dev/null", "--write-out", r"%{http_code}\n", "--max-time", "60")
    return service.machine.output(*curl, f"http://localhost/{name}/[1-{number}]", within=120).split()


def fields(service: Service, **wanted: object) -> list[dict[str, str]]:
    """Return the records of the server that have these fields."""
    return [
        record
        for record in service.journal()
        if record.get("SYSLOG_IDENTIFIER") == "pyserver"
        and all(record.get(name) == str(value) for name, value in wanted.items())
    ]


# -- life --------------------------------------------------------------------------------------------


def test_the_catalog_explains_what_happened(service: Service) -> None:
    shown, catalog = "/usr/share/pyserver/systemd/pyserver.catalog", "/usr/lib/systemd/catalog/pyserver.catalog"
    service.machine.output("cp", shown, catalog)
    service.machine.output("journalctl", "--update-catalog")
    listed = service.machine.output("journalctl", "--list-catalog")
    assert all(event.message_id in listed and event.subject in listed for event in EVENTS)

    service.start()
    killed = next(iter(service.workers()))
    service.kill(killed)
    lost = EVENT["worker-lost"]
    wait_until(lambda: fields(service, MESSAGE_ID=lost.message_id), 10, "the death of a worker told")
    explained = service.machine.output(
        "journalctl", "--catalog", "--unit=pyserver", f"MESSAGE_ID={lost.message_id}", "--lines=1", "--no-pager"
    )
    assert f"pid {killed}) killed by SIGKILL" in explained
    assert lost.subject in explained
    assert lost.text.splitlines()[0] in explained
    (record,) = fields(service, MESSAGE_ID=lost.message_id)
    assert " leads, waiting for " in record["THREADS"]
    assert record["MESSAGE"].endswith("\n" + record["THREADS"])


def test_each_event_of_a_life_has_its_identifier(service: Service) -> None:
    service.start()
    service.stop()
    told = {record.get("MESSAGE_ID") for record in fields(service)}
    names = ("listening", "sandbox", "worker-ready", "ready", "stopping", "worker-drained", "stopped")
    assert told == {EVENT[name].message_id for name in names}


# -- requests ----------------------------------------------------------------------------------------


def test_the_journal_is_asked_for_what_failed(service: Service) -> None:
    service.start()
    service.get("/")
    service.machine.output("curl", "--silent", "--referer", "http://example.org/", "http://localhost/missing?a=b")
    service.machine.output("journalctl", "--sync")
    query = ("journalctl", "--unit=pyserver", "HTTP_STATUS=404", "HTTP_PATH=/missing", "--output=cat")
    assert service.machine.output(*query) == "GET /missing?a=b HTTP/1.1: status 404\n"
    (record,) = fields(service, HTTP_STATUS=404)
    assert (record["CLIENT"], record["HTTP_METHOD"], record["HTTP_HOST"]) in [
        ("127.0.0.1", "GET", "localhost"),
        ("::1", "GET", "localhost"),
    ]
    assert record["HTTP_REFERER"] == "http://example.org/"
    assert record["WORKER"] in ("0", "1")
    assert 0 <= int(record["DURATION_US"]) < 60e6
    assert 0 < int(record["QUEUE_US"]) < 60e6
    assert record["MESSAGE_ID"] == EVENT["request-failed"].message_id
    assert [other for other in fields(service) if "HTTP_STATUS" in other] == [record]  # what went well is not there


def test_a_flood_of_failures_is_bounded_and_what_is_left_out_is_counted(service: Service) -> None:
    service.configure(CONFIG.replace("[log]", "[log]\njournal_requests = 10"))
    service.start()
    assert asked(service, 300, "flood") == ["404"] * 300

    def counted() -> int:
        left_out = sum(int(record["LEFT_OUT"]) for record in fields(service) if "LEFT_OUT" in record)
        assert left_out > 0 or len(fields(service, HTTP_STATUS=404)) < 300
        return len(fields(service, HTTP_STATUS=404)) + left_out

    wait_until(lambda: counted() == 300, 10, "every failure is there or counted")
    wait_until(lambda: fields(service, MESSAGE_ID=EVENT["requests-left-out"].message_id), 10, "the rest told")


# -- a journal that does not take anything ---------------------------------------------------------


def test_a_stopped_journal_delays_no_request_and_what_it_misses_is_counted(service: Service) -> None:
    one_worker = CONFIG.replace("workers = 2", "workers = 1")
    service.configure(one_worker.replace("[log]", "[log]\njournal_requests = 10000"))
    service.start()
    asked(service, 1, "before")
    with journal_stopped(service.machine):
        assert asked(service, 1500, "meanwhile") == ["404"] * 1500
        service.get("/")
    # The next record that gets through is preceded by one that says how many did not.
    after = count()
    wait_until(
        lambda: asked(service, 1, f"after/{next(after)}") and service.says(r"^\d+ log records? .* dropped"),
        20,
        "losses told",
    )
    last = fields(service, MESSAGE_ID=EVENT["records-dropped"].message_id, ROLE="worker 0")
    dropped = sum(int(record["DROPPED"]) for record in last)
    kept = [record for record in fields(service, HTTP_STATUS=404) if record["HTTP_PATH"].startswith("/meanwhile/")]
    # Of those that were asked for after it some may be among the dropped.
    assert 1500 <= len(kept) + dropped < 1500 + next(after)
    assert dropped > 100
    # One more may have been dropped since it was told.
    wait_until(lambda: service.status()["totals"]["log_records_dropped"] >= dropped, 10, "as many in the status")
    # The access log is complete.
    lines = ("grep", "--count", '"GET /meanwhile/', LOG)
    wait_until(lambda: service.machine.output(*lines).strip() == "1500", 10, "all requests in the access log")


# -- the access log ----------------------------------------------------------------------------------


def test_logrotate_moves_the_log_and_the_workers_follow(service: Service) -> None:
    service.machine.output("cp", "/usr/share/pyserver/systemd/pyserver.logrotate", "/etc/logrotate.d/pyserver")
    service.machine.output("rm", "-f", LOG, f"{LOG}.1")
    service.start()
    service.get("/?before")
    wait_until(lambda: "/?before" in service.machine.output("cat", LOG), 10, "the line written")
    service.machine.output("logrotate", "--force", "/etc/logrotate.d/pyserver")

    def opened_anew() -> bool:
        service.get("/?after")
        return "/?after" in service.machine.output("cat", LOG, status=None)

    wait_until(opened_anew, 20, "lines in a new file")
    assert "/?before" in service.machine.output("cat", f"{LOG}.1")
    assert "/?before" not in service.machine.output("cat", LOG)
    stat = service.machine.output("stat", "--format=%U:%G %a", LOG, f"{LOG}.1")
    assert stat.splitlines() == ["pyserver:pyserver 640"] * 2
    assert service.says("SIGUSR1: workers open their log files again")
    service.machine.output("rm", "-f", "/etc/logrotate.d/pyserver", LOG, f"{LOG}.1")


def test_logrotate_does_nothing_amiss_where_the_service_does_not_run(service: Service) -> None:
    service.machine.output("cp", "/usr/share/pyserver/systemd/pyserver.logrotate", "/etc/logrotate.d/pyserver")
    service.machine.output("logrotate", "--force", "/etc/logrotate.d/pyserver")
    assert not service.is_active()
    service.machine.output("rm", "/etc/logrotate.d/pyserver")
