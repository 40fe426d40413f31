"""The events of the service that the journal knows by an identifier, and what is to be said of each.

Owns:    the table: MESSAGE_ID, the texts by which the event is logged, and its entry in the message catalog.
Never:   logs. An event is what is logged with one of its texts: a call needs no second name for it.
Used by: sd.journal (MESSAGE_ID), docs/generate.py (systemd/pyserver.catalog, which `journalctl -x` shows).

An identifier never changes its meaning, because others ask for it: `journalctl MESSAGE_ID=...`.
"""

from typing import Final, NamedTuple


class Event(NamedTuple):
    """One row."""

    name: str
    message_id: str  # 128 random bits (systemd-id128 new)
    subject: str
    logged_as: tuple[str, ...]  # the first argument of the log calls
    text: str  # for an administrator: what it means, and what to do


EVENTS: Final = (
    Event(
        "listening",
        "7cf6e48d656a49569b014123ab3e5832",
        "Listening for clients",
        ("listening on %s (%s)",),
        """\
A listener was taken up: handed over by systemd, which holds it for life, or
bound by the server itself where it runs without a .socket unit.
""",
    ),
    Event(
        "sandbox",
        "463a851d385542f7b6470695c11cd5ca",
        "What the server cannot do",
        ("sandbox %s",),
        """\
The server has looked at what it can do, and says which walls stand between it
and the rest of the machine. With pyserver.service as it is packaged all of
them do. What is off was changed by a drop-in (systemctl cat pyserver), or is
not offered by this kernel.
""",
    ),
    Event(
        "reload-failed",
        "c8ee330c07332907d525074515d54f3e",
        "A reload changed nothing",
        ("reload failed: %s",),
        """\
The new configuration or the new code was tried in a process of its own and
did not do, or its workers did not come up. All that served before serves on.
The reason is in this record; mend it and reload again.
""",
    ),
    Event(
        "idle-kept",
        "2df6cda4f1abd49284ba06aa62a23e56",
        "Idle connections wait for the next start",
        ("%d idle connections left with systemd",),
        """\
The service stops, and systemd holds the connections on which nothing was
under way (FileDescriptorStoreMax=). After a restart they go on; after a stop
systemd closes them.
""",
    ),
    Event(
        "idle-taken-up",
        "1fe0228f65a6e4c955c3ced74966613e",
        "Idle connections go on",
        ("%d idle connections of an earlier start go on",),
        """\
Connections that an earlier start of the service had left with systemd were
passed on to the workers; their clients have noticed nothing.
""",
    ),
    Event(
        "new-version",
        "d6aab350aaa02919ea28a11abb736b7c",
        "New configuration and new code",
        ("version %s follows version %s, its workers start",),
        """\
The master has executed itself anew, under its process id and with its
listeners. Its new workers start; those before them serve until the new ones
do.
""",
    ),
    Event(
        "worker-ready",
        "b852385b8e3e465cb7ef882e3e5d44f0",
        "A worker serves",
        ("worker %d (generation %d) ready after %.2f s",),
        """\
A worker process has opened the folders of all sites and takes connections.
""",
    ),
    Event(
        "ready",
        "76e067b3f1444f91aeea147a9b6ca81d",
        "The service is ready",
        ("ready, %d workers of %d threads",),
        """\
All workers serve. The command that started the service returns now.
""",
    ),
    Event(
        "worker-lost",
        "75e6dae23c654d748b58d97ffcda62be",
        "A worker died",
        ("worker %d (generation %d, pid %d) %s after %.1f s: %d connections lost, %d wait for its successor%s",),
        """\
A worker process ended by itself, by a signal or by the kernel. Clients whose
requests it was answering have lost their connections; those that were waiting
for it are answered by its successor, which is started at once, or later and
later where workers keep dying soon after their start.

What its threads did and what its requests waited for, those that took the
longest, stands in the record, also in the fields THREADS and REQUESTS: a
request that is there at every death is the one to try.

If a signal of the kind of SIGSEGV or SIGABRT was the end, the stacks of its
threads stand above. SIGKILL without a word of the server before it is most
often the kernel's for want of memory (journalctl -k), or a person's.
""",
    ),
    Event(
        "worker-hung",
        "953386acf99a49bfb1553e7589209d7c",
        "A worker hangs and is ended",
        ("worker %d (generation %d) silent for %.1f s, killing it",),
        """\
A worker has given no sign of life for longer than server.hung_after, or for
server.start_within after its start. It was told to write the stacks of its
threads (they follow in the journal) and ends by that; its successor is
started at once. A disk or a network file system that does not answer is the
usual reason.

What its threads do and what its requests wait for, those that take the
longest, stands in the record, also in the fields THREADS and REQUESTS.
""",
    ),
    Event(
        "worker-drained",
        "db75cc7bbf074073923354d115f5d26b",
        "A worker has finished",
        ("worker %d (generation %d) drained and %s",),
        """\
A worker that was told to finish has answered all that it had, and ended.
""",
    ),
    Event(
        "cut",
        "7f8b66379ac94737aa130e1bc0d608ac",
        "Connections were cut at the end of the drain",
        (
            "worker %d (generation %d) %s, %d connections cut",
            "drain deadline passed, cutting %d connections",
            "drain deadline passed, not waiting for %d jobs",
        ),
        """\
The service was told to stop, and some answers were not finished within
server.drain. A large download over a slow line is the usual one.
""",
    ),
    Event(
        "stopping",
        "c1a5da08161f465aaff45a38a853df8c",
        "The service stops",
        ("%s: stopping, %d connections open, at most %g s",),
        """\
The service takes no new requests on the connections it has, and finishes
those under way. The listener is systemd's: who connects now waits there for
the next start. To close it too, stop pyserver.socket.
""",
    ),
    Event(
        "stopped",
        "6357bbf126e44e708a8f5b81adbe5633",
        "The service has stopped",
        ("stopped",),
        """\
All workers are gone, and nothing of the service is left in the system.
""",
    ),
    Event(
        "no-worker",
        "5162114c495f4479a998bd455b622208",
        "No worker comes up",
        ("no worker comes up (%s), giving up",),
        """\
Every worker ended during its start, so that there is nobody to serve. The
records above say why, often an unreadable folder or a log that cannot be
opened. pyserver check looks for what can be known before a start.

systemd tries again; meanwhile clients wait in the listener.
""",
    ),
    Event(
        "records-dropped",
        "717f117d8c4649f09f606aba931ba88f",
        "Records of the server are missing here",
        ("%d log record%s dropped: nobody took them in time",),
        """\
The journal did not take records of the server in time: it was stopped,
restarted or very busy. The server never waits for it, so these records are
lost. Requests were answered meanwhile, and are in the access log if there is
one.
""",
    ),
    Event(
        "out-of-descriptors",
        "a12452a08f8941b8aa4a68f08daf4047",
        "The limit of open files is reached",
        (
            "no descriptor for a client (%s), accepting again in %.1f s (pause %d)",
            "%d connections lost: the limit of open files is reached (LimitNOFILE=)",
        ),
        """\
Every connection needs a descriptor, and the process or the system has no more
of them. New clients wait in the listener meanwhile. Raise LimitNOFILE= in a
drop-in of pyserver.service, or fs.file-max (sysctl).
""",
    ),
    Event(
        "error-of-ours",
        "b284ff9876b04e789f220ccd40d06a2c",
        "An error in the server",
        (
            "an error of ours, its connection is closed",
            "a job failed",
            "worker failed, exiting",
        ),
        """\
This is a mistake in pyserver, and its traceback stands with the record. One
connection was closed for it; the others are served on. Please report it with
the traceback.
""",
    ),
    Event(
        "root-switched",
        "917be77ab0d64c2dbe81599652e69da6",
        "The root of a site was switched",
        ("root %s is %s",),
        """\
The path of a root leads to another folder than before: a new release, most
likely. It is served from now on; what was begun before is finished from the
old one.
""",
    ),
    Event(
        "root-gone",
        "09f1370292f24d8d9e7114b5c32a9aec",
        "The root of a site cannot be used",
        ("%s, serving on from the folder that was there",),
        """\
The path of a root leads nowhere, or to where the server may not read. The
folder that it led to before is open, and is served on.

Where server.landlock is named: the new folder lies outside of what the worker
has kept rights to, which is the folders above the root as they were at its
start. A restart of the service takes it up.
""",
    ),
    Event(
        "access-log-fails",
        "e1561540a6424d29b2b83d952f39748e",
        "The access log cannot be written",
        (
            "cannot write %s: %s, dropping its lines until it can be written",
            "%s takes no more, dropping its lines until it can be written",
            "cannot open %s again: %s, writing on to the old file",
        ),
        """\
The disk is full or does not answer, or the file cannot be opened after it was
moved away. Requests are answered all the same; lines that could not be
written are counted (pyserver status).
""",
    ),
    Event(
        "access-log-back",
        "5ff8007dc82046a3af6eed57232cc82c",
        "The access log can be written again",
        ("%s can be written again, %d lines were dropped so far",),
        """\
Lines of the access log that came meanwhile are lost; the record says how
many.
""",
    ),
    Event(
        "left-behind",
        "ba9c56c85e71489ea865fe87c6176540",
        "Something of a killed server was removed",
        ("removed what a killed server had left in shared memory: %s",),
        """\
A server that was killed could not remove its shared memory. It is gone now.
""",
    ),
    Event(
        "request-failed",
        "a5ca22435d1b4aee89c232b9a2a57ec6",
        "A request was answered by an error",
        ("%s: status %d",),
        """\
The fields of this record say which: HTTP_METHOD, HTTP_PATH, HTTP_STATUS,
HTTP_BYTES, CLIENT, WORKER, DURATION_US (to the end of the answer), QUEUE_US
(for which its connection waited, if it is the first on it), and where the
client sent them HTTP_HOST, HTTP_REFERER and HTTP_USER_AGENT. So journalctl
can be asked for them:

    journalctl -u pyserver HTTP_STATUS=404 --output-fields=HTTP_PATH -o cat

There are at most log.journal_requests of these a second. All requests are in
the access log, if there is one.
""",
    ),
    Event(
        "request-slow",
        "1b79e30bd2ed49ce99707f9ec8036575",
        "A request took long",
        ("%s %s: status %d after %.3f s, most of it %s (%s)",),
        """\
A request took longer than log.slow. Where its time went, also in the fields
QUEUE_US, READING_US, WORKING_US, SENDING_US and SERVING_US, and the longest
of them in SLOW_PHASE:

queue: its connection waited for a worker; there is more to do than the
workers can (server.workers), or one of them is held up.
reading: the client took so long to send it.
working: the disk, or there was no thread for it (server.threads).
sending: the client took so long to receive it.
serving: the worker had others to see to, or no processor.

    journalctl -u pyserver SLOW_PHASE=working

A worker tells of ten in a second, and of more of them how many.
""",
    ),
    Event(
        "slow-left-out",
        "2b76c5409fb04494b2298b5644b3275a",
        "Slow requests are not in the journal",
        ("%d slow requests more than %d a second are not here",),
        """\
More requests of a worker took longer than log.slow within a second than it
tells of. They are counted here only.
""",
    ),
    Event(
        "requests-left-out",
        "18d6276e9f6c4b61aa8dae36c3528764",
        "Failed requests are not in the journal",
        ("%d failed requests more than log.journal_requests are not here",),
        """\
More requests failed within a second than log.journal_requests lets into the
journal. They are in the access log, if there is one.
""",
    ),
)

MESSAGE_IDS: Final = {text: event.message_id for event in EVENTS for text in event.logged_as}


def catalog() -> str:
    """Return the message catalog (https://systemd.io/CATALOG/)."""
    return "".join(
        f"-- {event.message_id}\nSubject: {event.subject}\nDefined-By: pyserver\n\n{event.text}\n" for event in EVENTS
    )
