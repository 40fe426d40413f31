"""A worker: takes what the master forked it with, becomes ready, serves, drains, exits.

Owns:    the putting together of a worker's parts, and the order of them: it is confined before it has a thread.
Fails:   exit status 78 (EX_CONFIG) when the configuration turns out unusable here: root or access log.
Used by: cli (hands `run` to the master as the entry of forked children).
"""

import contextlib
import faulthandler
import gc
import logging
import os
import resource
import select
import socket
import time
from collections.abc import Callable, Sequence

import setproctitle

from pyserver import landlock
from pyserver.clock import Clock
from pyserver.config import Config, Log, Site
from pyserver.files.codings import CODINGS
from pyserver.files.resolve import RootError
from pyserver.handlers import router
from pyserver.handlers.memo import Memo
from pyserver.handlers.router import Handler
from pyserver.http.scanner import Bounds
from pyserver.ipc.assignment import ADMIN, Assignment
from pyserver.ipc.observe import Snapshot, snapshot
from pyserver.ipc.stats import Tally
from pyserver.limits import (
    COLLECT_EVERY_OBJECTS,
    DESCRIPTORS_PREPARED_MAX,
    FILES_KEPT_OPEN_MAX,
    WORKER_RESERVED_DESCRIPTORS,
)
from pyserver.sd import journal
from pyserver.sd.journal import JournalOutput
from pyserver.worker.accesslog import AccessLog
from pyserver.worker.admission import Admission
from pyserver.worker.alone import make_room_for_descriptors, share_one_arena
from pyserver.worker.connection import Connections
from pyserver.worker.failures import Failures, share_of
from pyserver.worker.pool import Pool
from pyserver.worker.proxies import Proxies
from pyserver.worker.records import Records
from pyserver.worker.slow import Slow
from pyserver.worker.tracing import Tracing

log = logging.getLogger("pyserver")

_EX_CONFIG = 78


def run(assignment: Assignment) -> int:
    """Be the worker of a slot until it has drained; return its exit status."""
    slot, config = assignment.slot, assignment.config
    output = journal.configure(f"worker {slot}")
    faulthandler.enable()
    share_one_arena()
    setproctitle.setproctitle(f"{config.title}: worker {slot}")
    clock, tally, limits = Clock(), Tally(), config.limits
    memo = Memo(limits.memo_bytes, Bounds(limits.head_bytes, limits.target_bytes, limits.head_fields))

    def submit(work: Callable[[], None], then: Callable[[], None]) -> bool:
        return connections.submit(work, then)  # of below: nobody asks a site before

    try:
        followers = config.server.threads > 1
        sites = router.build(
            config.sites, config.limits, clock, submit=submit if followers else None, on_switch=memo.forget
        )
        access = _access_log(config.log, clock, slot)
    except RootError as error:
        log.error("%s", error)  # noqa: TRY400  for the administrator, not our stack
        return _EX_CONFIG
    except OSError as error:
        log.error("cannot open the access log %s: %s", config.log.access, error.strerror)  # noqa: TRY400
        return _EX_CONFIG
    others = _others(assignment, clock)
    if config.server.landlock == "auto":
        _confine(config)
    poll = select.epoll()
    capacity = _capacity(config.sites)
    make_room_for_descriptors(min(capacity, DESCRIPTORS_PREPARED_MAX), poll.fileno())
    share = share_of(config.log.journal_requests, config.worker_count(), slot)
    failures = Failures(slot, share, clock) if share and isinstance(output, JournalOutput) else None
    table = assignment.clients
    slow = Slow(slot, config.log.slow, clock) if config.log.slow else None
    proxies = Proxies(config.proxies, assignment.origins, clock) if config.proxies.trusted else None
    admission = None if table is None else Admission(config.clients, table, slot, clock, tally, proxies)
    connections = Connections(
        sites,
        assignment.origins,
        config.limits,
        clock,
        tally,
        Records(clock, access, failures, slow, proxies),
        poll,
        capacity,
        memo,
        admission,
        others,
        proxies=proxies,
        tracing=Tracing(config.tracing) if config.tracing.wanted else None,
        queue_wait=config.server.queue_wait,
    )
    pool = Pool(assignment, connections, clock, tally, access, poll, leave=lambda: os._exit(0), output=output)
    # What is here now stays: out of the collector's sight it is neither walked nor copied.
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY_OBJECTS)
    pool.run()
    if access is not None:
        access.close()
    if slow is not None:
        slow.close()
    return 0


def _access_log(options: Log, clock: Clock, slot: int) -> AccessLog | None:
    if options.access == "off":
        return None
    if options.format == "combined":
        return AccessLog(options.access, clock)
    from pyserver.worker.jsonlog import JsonLog  # noqa: PLC0415  with json, which most have no use for

    return JsonLog(options.access, clock, slot)


def _others(assignment: Assignment, clock: Clock) -> dict[int, Handler]:
    """Return what answers in place of the sites, by the index of its listener."""
    names = [origin.name for origin in assignment.origins]
    if ADMIN not in names:
        return {}
    from pyserver.handlers.status import Status  # noqa: PLC0415  with a library: megabytes, that few have a use for

    def look() -> Snapshot:
        return snapshot(assignment.segment)

    return {
        index: Status(look, clock, any_name=origin.family == socket.AF_UNIX)
        for index, origin in enumerate(assignment.origins)
        if origin.name == ADMIN
    }


def _confine(config: Config) -> None:
    """Give up what a worker has no use for. There is no other thread yet, which would keep it."""
    time.tzset()  # read now what the time zone is: it may be a file anywhere
    roots = [root for site in config.sites for root in (site.root, *(alias.root for alias in site.aliases))]
    log_file = [] if config.log.access in ("off", "-") else [config.log.access]
    try:
        landlock.confine(
            readable={folder for root in roots for folder in landlock.homes_of(root)},
            writable={folder for path in log_file for folder in landlock.homes_of_log(path)},
        )
    except landlock.Unavailable as reason:  # it is a second wall; the master has told which stand
        log.debug("%s", reason)


def _capacity(sites: Sequence[Site]) -> int:
    """Return how many connections fit into our limit of open files, with what else needs descriptors left free."""
    roots = sum(1 + len(site.aliases) for site in sites)
    soft = 1024
    with contextlib.suppress(OSError, ValueError):
        soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(32, soft - WORKER_RESERVED_DESCRIPTORS - roots - FILES_KEPT_OPEN_MAX * (1 + len(CODINGS)))
