"""What befalls a service while clients ask it, and what became of each of them: one function for each event.

Owns:    /srv/site in the machine, which is served, and the drop-in that an event needs; the latter goes with it.
Never:   counts by other means than the clients, except where the journal says it too.
Fails:   what does not hold is in Outcome.amiss; AssertionError or CommandError where a machine
         does not do as it is told.
Used by: tests.systemd.test_life (a few times each), tests/systemd/events (the whole, with figures).
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.service.client import STALL_S
from tests.systemd.machine import Machine, wait_until
from tests.systemd.service import CONFIG, Clients, Service, clients, journal_stopped

SITE: Final = "/srv/site"
SITE_CONFIG: Final = CONFIG.replace("/var/www/pyserver", SITE)
DROP_IN: Final = "/run/systemd/system/pyserver.service.d/life.conf"

# One page to ask for again and again, a large file to be in the middle of, and many to fill a cache with.
MAKE_SITE: Final = """
    [ ! -e /srv/site ] || exit 0
    mkdir /srv/site.new
    cp -r /var/www/pyserver/. /srv/site.new/
    head -c 16777216 /dev/urandom >/srv/site.new/large.bin
    for number in $(seq 64); do head -c 250000 /dev/urandom >/srv/site.new/$number.bin; done
    chmod -R a+rX /srv/site.new
    mv /srv/site.new /srv/site
"""

# What a client rests between an answer and its next request: four of them ask about a thousand times a second, which
# leaves the machine the time that an event takes on one that is not full.
REST_S: Final = 0.002
LOAD: Final = 4
IDLE: Final = 200

# Every other request is for this, which makes a record in the journal.
MISSING: Final = "/nowhere"
JOURNAL_STILL_S: Final = 5.0

NGINX_LOGS: Final = "/etc/nginx/conf.d/journal.conf"

# What is seen of a journal is not to be what it leaves out by itself (RateLimitBurst=).
NO_LIMIT: Final = "LogRateLimitIntervalSec=0\n"

# How long the machine may take for what it does at once, also when it stands still now and then.
PATIENCE_S: Final = 30.0

MEMORY: Final = Path("/sys/fs/cgroup/memory")  # of cgroup version 1: a group that systemd does not look after
MEMORY_LIMIT_BYTES: Final = 4 << 20


Death = tuple[float, float]  # it was between these moments (monotonic)


class Impossible(Exception):
    """The event cannot be made to happen on this host; the text says why."""


@dataclass
class Outcome:
    """What became of the clients over one kind of event."""

    event: str
    answered: int = 0
    lost: Counter[str] = field(default_factory=Counter)  # by the name of the failure
    stalls: list[float] = field(default_factory=list)  # seconds, the longest wait after each time it happened
    idle: int = 0  # connections that waited without a request all along
    kept: int = 0  # of them
    told: list[str] = field(default_factory=list)
    amiss: list[str] = field(default_factory=list)  # what does not hold

    def must(self, holds: object, what: str) -> None:
        """Note `what` unless it holds."""
        if not holds:
            self.amiss.append(what)


@dataclass(frozen=True)
class Peer:
    """Whom the clients ask: a unit that listens on port 80 and serves SITE."""

    machine: Machine
    unit: str

    def order(self, verb: str) -> float:
        """Give an order, and return when (monotonic). Afterwards a page is served."""
        begin = time.monotonic()
        self.machine.output("systemctl", verb, self.unit)
        self.get()
        return begin

    def get(self) -> None:
        """Fetch a page; while nobody listens, try again."""
        retry = ("--retry-connrefused", "--retry", "100", "--retry-delay", "0", "--retry-max-time", "30")
        self.machine.output("curl", "--silent", "--fail", "--max-time", "30", *retry, "http://localhost/")


def prepare(machine: Machine) -> None:
    """Make what is served, once for each machine."""
    machine.output("sh", "-ec", MAKE_SITE)


@contextmanager
def serving(service: Service, settings: str = "", unit: str = "", log: str = "") -> Iterator[Peer]:
    """Serve SITE with lines for [server], for [Service] and for [log]; afterwards the unit is as it was."""
    prepare(service.machine)
    text = SITE_CONFIG.replace("workers = 2\n", f"workers = 2\n{settings}")
    service.configure(text.replace("[log]\n", f"[log]\n{log}"))
    if unit:
        service.machine.write(DROP_IN, f"[Service]\n{unit}")
        service.machine.output("systemctl", "daemon-reload")
    try:
        service.start()
        yield Peer(service.machine, "pyserver")
    finally:
        service.stop()
        if unit:
            service.machine.output("rm", DROP_IN)
            service.machine.output("systemctl", "daemon-reload")


# -- orders: any server can be given them --------------------------------------------------------------


def restarts(peer: Peer, times: int) -> Outcome:
    return _orders(peer, "restart", times)


def reloads(peer: Peer, times: int) -> Outcome:
    return _orders(peer, "reload", times)


def _orders(peer: Peer, verb: str, times: int) -> Outcome:
    with clients(peer.machine, idle=IDLE, rest=REST_S) as seen:
        moments = [peer.order(verb) for _ in range(times)]
    outcome = _counted(f"systemctl {verb}, {times} times", seen, moments)
    outcome.must(not outcome.lost, f"lost: {dict(outcome.lost)}")
    outcome.must(outcome.kept == IDLE, f"idle connections: {seen.idle}")
    return outcome


def reload_under_a_download(peer: Peer, seconds: float) -> Outcome:
    """One client is in the middle of a large answer, another asks for the page on new connections."""
    with clients(peer.machine, one_shot=1, keep_alive=0, rest=REST_S, download=_large(peer.machine, seconds)) as seen:
        moment = peer.order("reload")
        reloaded = time.monotonic()
    outcome = _counted(f"reload in the middle of a download of {seconds:g} s", seen, [moment])
    assert seen.download is not None
    ending, ended_at = seen.download
    outcome.told.append(f"the download: {ending}, {ended_at - reloaded:.1f} s after the reload")
    outcome.must(ending == "whole", f"the download: {ending}")
    outcome.must(not outcome.lost, f"lost: {dict(outcome.lost)}")
    return outcome


# -- deaths: of processes of ours -----------------------------------------------------------------------


def worker_kills(service: Service, times: int) -> Outcome:
    """kill -9, again and again; the next one when two workers serve."""
    chance = random.Random(times)
    deaths: list[Death] = []
    with serving(service, "respawn_delay_max = 0.05\n") as peer, clients(peer.machine, rest=REST_S) as seen:
        for _ in range(times):
            pid = chance.choice(sorted(_serving_workers(service)))
            begin = time.monotonic()
            service.kill(pid)
            wait_until(lambda pid=pid: pid not in service.workers(), PATIENCE_S, "the worker gone")  # type: ignore[misc]
            deaths.append((begin, time.monotonic()))
            peer.get()
            wait_until(lambda: len(_serving_workers(service)) == 2, PATIENCE_S, "two workers again")
    outcome = _counted(f"kill -9 of a worker, {times} times", seen, [begin for begin, _ in deaths])
    _must_be_of_the_dead(outcome, seen, deaths)
    told = sum(int(record["CONNECTIONS_LOST"]) for record in service.journal() if "CONNECTIONS_LOST" in record)
    outcome.told.append(f"by the journal {told} connections lost")  # as of the worker's last round
    outcome.must(outcome.lost.total() <= LOAD * times, "more than one request of each client for a death")
    return outcome


def master_kills(service: Service, times: int) -> Outcome:
    """kill -9; the next one when systemd has started the next and all is ready."""
    deaths: list[Death] = []
    with serving(service) as peer, clients(peer.machine, rest=REST_S) as seen:
        for _ in range(times):
            master = service.main_pid()
            begin = time.monotonic()
            service.kill(master)
            peer.get()
            deaths.append((begin, time.monotonic()))  # by then systemd has ended the workers too
            wait_until(lambda: service.is_active(), PATIENCE_S, "active again")  # noqa: PLW0108
            assert service.main_pid() != master
    outcome = _counted(f"kill -9 of the master, {times} times", seen, [begin for begin, _ in deaths])
    _must_be_of_the_dead(outcome, seen, deaths)
    return outcome


def stopped_worker(service: Service) -> Outcome:
    """SIGSTOP: it is found out, says where it was, and is replaced."""
    limit = 3.0  # a machine that stands still for a moment is no worker that does
    with serving(service, f"hung_after = {limit}\n") as peer, clients(peer.machine, rest=REST_S) as seen:
        pid = min(_serving_workers(service))
        stopped = time.monotonic()
        peer.machine.output("kill", "-STOP", str(pid))
        wait_until(lambda: pid not in service.workers(), PATIENCE_S, "the worker gone")
        gone = time.monotonic()
        wait_until(lambda: len(_serving_workers(service)) == 2, PATIENCE_S, "two workers again")
        peer.get()
    outcome = _counted("SIGSTOP of a worker", seen, [stopped])
    outcome.told.append(f"gone after {gone - stopped:.1f} s, `hung_after` is {limit:g} s")
    _must_be_of_the_dead(outcome, seen, [(stopped, gone)])
    outcome.must(service.says(r"worker \d \(generation 1\) silent for"), "the journal does not say that it hung")
    outcome.must(service.says(r'^ *File ".*/pyserver/worker/.*", line \d+ in '), "no stacks in the journal")
    return outcome


def stopped_master(service: Service) -> Outcome:
    """SIGSTOP: systemd's watchdog finds it out."""
    with serving(service, unit="WatchdogSec=2\n") as peer, clients(peer.machine, rest=REST_S) as seen:
        master = service.main_pid()
        stopped = time.monotonic()
        peer.machine.output("kill", "-STOP", str(master))
        peer.get()
        wait_until(lambda: service.show("MainPID") not in ("0", str(master)), PATIENCE_S, "another master")
        gone = time.monotonic()
        service.wait_until_active(PATIENCE_S)
        peer.get()
    outcome = _counted("SIGSTOP of the master", seen, [stopped])
    outcome.told.append("`WatchdogSec` is 2 s")
    _must_be_of_the_dead(outcome, seen, [(stopped, gone)])
    outcome.must(service.says("Watchdog timeout"), "the watchdog did nothing")
    return outcome


def oom_kill(service: Service) -> Outcome:
    """The kernel ends a worker for want of memory."""
    if not (MEMORY / "cgroup.procs").exists():
        raise Impossible("this host has no memory controller of cgroup version 1 to limit a single worker by")
    with (
        serving(service) as peer,
        clients(peer.machine, rest=REST_S) as seen,
        _short_of_memory(peer.machine) as group,
    ):
        master, pid = service.main_pid(), min(_serving_workers(service))
        (group / "cgroup.procs").write_text(str(peer.machine.outside(pid)))
        begun = time.monotonic()

        def gone() -> bool:
            files = ("curl", "--silent", "--output", "/dev/null", "--max-time", "20")
            peer.machine.output(*files, "http://localhost/[1-64].bin", status=None, within=120)
            return pid not in service.workers()

        wait_until(gone, 2 * PATIENCE_S, "the worker gone")
        counts = dict(line.split() for line in (group / "memory.oom_control").read_text().splitlines())
        wait_until(lambda: len(_serving_workers(service)) == 2, PATIENCE_S, "two workers again")
        peer.get()
        same = service.main_pid() == master
    outcome = _counted("OOM kill of a worker", seen, [begun])
    outcome.told.append(f"by the kernel {counts.get('oom_kill')} killed for want of memory")
    outcome.must(counts.get("oom_kill") == "1", f"the kernel says {counts}")
    outcome.must(same, "the master went too")
    outcome.must(outcome.lost.keys() <= {"Reset", "Truncated"}, f"lost: {dict(outcome.lost)}")
    outcome.must(service.says(rf"\(generation 1, pid {pid}\) killed by SIGKILL"), "the journal does not say it")
    return outcome


# -- the end ----------------------------------------------------------------------------------------------


def stop_under_a_download(service: Service, seconds: float) -> Outcome:
    """The unit's own deadline is shorter than the download; the server asks systemd for the time that it needs."""
    with serving(service, "drain = 60\n", "TimeoutStopSec=2\n") as peer:
        download = _large(peer.machine, seconds)
        with clients(peer.machine, one_shot=0, keep_alive=0, download=download) as seen:
            begin = time.monotonic()
            peer.machine.output("systemctl", "stop", "pyserver", within=120)
            took = time.monotonic() - begin
        result = service.show("Result")
    outcome = _counted(f"systemctl stop in the middle of a download of {seconds:g} s", seen, [])
    assert seen.download is not None
    outcome.told.append(f"the download: {seen.download[0]}; the stop took {took:.1f} s, `TimeoutStopSec` is 2 s")
    outcome.must(seen.download[0] == "whole", f"the download: {seen.download[0]}")
    outcome.must(result == "success", f"Result={result}")
    return outcome


def stop_past_the_deadline(service: Service) -> Outcome:
    """A download that takes longer than `server.drain` is cut, and that is said."""
    with serving(service, "drain = 1\n") as peer:
        with clients(peer.machine, one_shot=0, keep_alive=0, download=_large(peer.machine, 10)) as seen:
            peer.machine.output("systemctl", "stop", "pyserver", within=120)
        result = service.show("Result")
    outcome = _counted("systemctl stop, and a download that takes too long", seen, [])
    assert seen.download is not None
    outcome.told.append(f"the download: {seen.download[0]}, after `server.drain`")
    outcome.must(seen.download[0] in ("Truncated", "Reset"), f"the download: {seen.download[0]}")
    outcome.must(service.says("drain deadline passed, cutting 1 connections"), "the journal does not say what was cut")
    outcome.must(result == "success", f"Result={result}")
    return outcome


# -- a journal that takes nothing ---------------------------------------------------------------------------


def stopped_journal(service: Service, seconds: float = JOURNAL_STILL_S) -> Outcome:
    """SIGSTOP of journald: nobody waits for it, and what it misses is counted and told."""
    with serving(service, unit=NO_LIMIT, log="journal_requests = 10000\n") as peer:
        outcome = _journal_stands_still(peer, seconds, lambda: _counted_as_dropped(service) > 100)

        def told() -> bool:
            """Each worker tells of its losses before its next record."""
            peer.machine.output("curl", "--silent", f"http://localhost{MISSING}")
            return _told_as_dropped(service) > 0 and _told_as_dropped(service) == _counted_as_dropped(service)

        wait_until(told, PATIENCE_S, "losses told and counted")
        there, dropped = _records(service, "HTTP_STATUS"), _told_as_dropped(service)
        wait_until(
            lambda: service.status()["totals"]["responses_4xx"] == there + dropped,
            PATIENCE_S,
            "each is there or counted",
        )
    outcome.told.append(f"of {there + dropped:,} records {dropped:,} dropped, by the status and by the journal")
    outcome.must(not outcome.lost, f"lost: {dict(outcome.lost)}")
    return outcome


def _told_as_dropped(service: Service) -> int:
    return sum(
        int(record["DROPPED"]) for record in service.journal() if "DROPPED" in record and record["ROLE"] != "master"
    )


def _records(service: Service, having: str) -> int:
    return sum(having in record for record in service.journal())


def _counted_as_dropped(service: Service) -> int:
    return int(service.status()["totals"]["log_records_dropped"])


def stopped_journal_of_nginx(machine: Machine, seconds: float = JOURNAL_STILL_S) -> Outcome:
    """The same, with an access log by syslog(3): that is how nginx reaches a journal."""
    machine.write(
        NGINX_LOGS, "access_log /var/log/nginx/here.log;\naccess_log syslog:server=unix:/dev/log,nohostname;\n"
    )
    machine.output("systemctl", "start", "nginx")
    try:
        outcome = _journal_stands_still(Peer(machine, "nginx"), seconds, lambda: True)
    finally:
        machine.output("systemctl", "stop", "nginx")
        machine.output("rm", NGINX_LOGS)
    machine.output("journalctl", "--sync")
    said = machine.output("journalctl", "--boot", "_SYSTEMD_UNIT=nginx.service", "--output=cat")
    asked = int(machine.output("sh", "-c", "wc -l </var/log/nginx/here.log"))
    lines = len([line for line in said.splitlines() if '"GET /' in line])
    outcome.told.append(f"of {asked:,} lines by syslog {asked - lines:,} are not in the journal")
    return outcome


def _journal_stands_still(peer: Peer, seconds: float, full: Callable[[], bool]) -> Outcome:
    """Ask for a while, then with a journal that stands still until it is `full`; every other request makes a record."""
    with clients(peer.machine, rest=REST_S, missing=MISSING, stall=0) as seen:
        begun = time.monotonic()
        time.sleep(seconds)
        with journal_stopped(peer.machine):
            stopped = time.monotonic()
            time.sleep(seconds)
            wait_until(full, PATIENCE_S, "losses counted")  # of whoever waits for the journal there are none
            gone_on = time.monotonic()
    outcome = _counted("SIGSTOP of journald", seen, [stopped])
    before = sorted(took for since, took in seen.stalls if begun <= since < stopped)
    meanwhile = sorted(took for since, took in seen.stalls if stopped <= since < gone_on)
    outcome.stalls = [max(meanwhile)]
    shown = [f"{1000 * waits[len(waits) * 99 // 100]:.1f} ms" for waits in (before, meanwhile)]
    outcome.told.append(f"{seconds:g} s; 99 % of the answers within {shown[0]} before, {shown[1]} meanwhile")
    return outcome


def totals(service: Service) -> Outcome:
    """What was counted before a restart, a reload and a death is counted after it."""
    asked = 0
    with serving(service) as peer:
        since = service.status()["since"]
        for befall in (
            lambda: peer.machine.output("systemctl", "restart", "pyserver"),
            lambda: peer.machine.output("systemctl", "reload", "pyserver"),
            lambda: service.kill(service.main_pid()),
        ):
            for _ in range(5):
                service.get("/")
            befall()
            service.get("/")
            asked += 6
        wait_until(lambda: service.status()["totals"]["requests"] >= asked, PATIENCE_S, "all counted")
        status = service.status()
    outcome = Outcome("totals over restart, reload and kill -9 of the master", answered=asked)
    counted = status["totals"]["requests"]
    outcome.told.append(f"{asked} requests, {counted} counted")
    outcome.must(counted == asked, f"{counted} counted of {asked}")
    outcome.must(status["since"] == since, "they count from another moment")
    return outcome


# -- what the clients saw ------------------------------------------------------------------------------------


def _counted(event: str, seen: Clients, moments: list[float]) -> Outcome:
    ends = [*moments[1:], float("inf")][: len(moments)]
    return Outcome(
        event,
        answered=sum(seen.answered.values()),
        lost=Counter(failure["what"] for failure in seen.failures),
        stalls=[
            max((took for since, took in seen.stalls if since < end and since + took > begin), default=STALL_S)
            for begin, end in zip(moments, ends, strict=True)
        ],
        idle=sum(seen.idle.values()),
        kept=seen.idle.get("lives", 0),
    )


def _must_be_of_the_dead(outcome: Outcome, seen: Clients, deaths: list[Death]) -> None:
    """Only what a process had that died is lost: cut, at a moment of a death, and nobody waits in vain."""
    outcome.must(outcome.lost.keys() <= {"Reset", "Truncated"}, f"lost: {dict(outcome.lost)}")
    unexplained = [
        failure
        for failure in seen.failures
        if not any(failure["since"] <= end and begin <= failure["at"] for begin, end in deaths)
    ]
    outcome.must(not unexplained, f"lost without a death: {unexplained[:3]}")


def _serving_workers(service: Service) -> list[int]:
    """Return the workers that are through their start, as far as their title says."""
    return [pid for pid, title in service.workers().items() if title.startswith("pyserver: worker")]


def _large(machine: Machine, seconds: float) -> tuple[str, str, float]:
    digest = machine.output("sha256sum", f"{SITE}/large.bin").split()[0]
    return "/large.bin", digest, seconds


@contextmanager
def _short_of_memory(machine: Machine) -> Iterator[Path]:
    """Make a control group in which there is hardly any memory."""
    group = MEMORY / machine.name
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(MEMORY_LIMIT_BYTES))
    except OSError as error:
        raise Impossible(f"the memory of a control group cannot be limited here: {error.strerror}") from error
    try:
        yield group
    finally:
        empty = group.rmdir

        def removed() -> bool:
            try:
                empty()
            except OSError:
                return False
            return True

        wait_until(removed, PATIENCE_S, f"{group} removed")


# What befalls pyserver alone, by the name that `events` knows it by.
OF_OURS: Final[dict[str, Callable[[Service], Outcome]]] = {
    "kill-worker": lambda service: worker_kills(service, 50),
    "kill-master": lambda service: master_kills(service, 10),
    "stop-worker": stopped_worker,
    "stop-master": stopped_master,
    "oom": oom_kill,
    "stop": lambda service: stop_under_a_download(service, 6),
    "deadline": stop_past_the_deadline,
    "journal": stopped_journal,
    "totals": totals,
}

# What befalls nginx by a configuration of its own.
OF_NGINX: Final[dict[str, Callable[[Machine], Outcome]]] = {"journal": stopped_journal_of_nginx}

# What any server can be told.
OF_ALL: Final[dict[str, Callable[[Peer], Outcome]]] = {
    "restart": lambda peer: restarts(peer, 20),
    "reload": lambda peer: reloads(peer, 20),
    "reload-download": lambda peer: reload_under_a_download(peer, 3),
}
