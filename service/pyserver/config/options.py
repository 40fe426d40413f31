"""The table of options: adding one is adding a line here, and a row to the test.

Owns:    name, kind, default, bounds, unit and sentence of every option; the frozen Config made of them.
Never:   reads a file; config.reading does.
Used by: config (what others see of it: help texts for cli, a Config for master and worker), config.reading,
         config.sites; docs/generate.py.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypeVar, cast

from pyserver.config.address import Address
from pyserver.config.errors import Refused, literal
from pyserver.config.kinds import (
    ADDRESS,
    COUNT,
    COUNT_OR_AUTO,
    FOLDER,
    INSTANCE,
    LOG_TARGET,
    NAMES,
    NETWORKS,
    OTHER_FOLDER,
    PEERS,
    SECONDS,
    SIZE,
    UNITS,
    Kind,
)
from pyserver.config.record import MISSING, Field, Record
from pyserver.config.sitekinds import (
    FIELDS,
    FLAG,
    FOLDER_PATH,
    HOSTS,
    MOVED_FROM,
    MOVED_STATUS,
    MOVED_TO,
    ORIGINS,
    PAGE,
    PAGES,
    PATTERN,
    words,
)
from pyserver.limits import FIELDS_MAX, HEAD_MAX_BYTES, KIB, MIB, TARGET_MAX_BYTES

Bounds: TypeAlias = tuple[float, float]

_T = TypeVar("_T")


def _option(kind: Kind, text: str, *, default: _T, bounds: Bounds | None = None, unit: str = "", key: str = "") -> _T:
    row = {"kind": kind, "text": text, "default": default, "bounds": bounds, "unit": unit, "key": key}
    return cast("_T", Field(default, row))


_REQUIRED: Final[Any] = MISSING


class Server(Record):
    """Processes, threads, and the queue between them."""

    workers: int | Literal["auto"] = _option(
        COUNT_OR_AUTO,
        'Worker processes; "auto" is one for each core that the service may use.',
        default="auto",
        bounds=(1, 64),
        unit="processes",
    )
    threads: int = _option(
        COUNT,
        "Threads of each worker: one leads, the others take what may wait for the disk.",
        default=16,
        bounds=(1, 512),
        unit="threads",
    )
    queue: int = _option(
        COUNT,
        "Connections accepted and not yet taken by a worker; beyond it clients wait in the kernel.",
        default=1024,
        bounds=(1, 65536),
        unit="connections",
    )
    queue_wait: float = _option(
        SECONDS,
        "Who waits longer for a worker is refused with 503 and Retry-After; 0: nobody is.",
        default=30.0,
        bounds=(0, 3600),
        unit="seconds",
    )
    drain: float = _option(
        SECONDS,
        "How long a stop waits for answers under way.",
        default=25.0,
        bounds=(0, 3600),
        unit="seconds",
    )
    hung_after: float = _option(
        SECONDS,
        "Silence of a worker after which it is killed and replaced.",
        default=5.0,
        bounds=(1, 600),
        unit="seconds",
    )
    respawn_delay_max: float = _option(
        SECONDS,
        "Longest rest before a worker that keeps dying is started again.",
        default=5.0,
        bounds=(0.01, 300),
        unit="seconds",
    )
    start_within: float = _option(
        SECONDS,
        "A new worker is ready by then, or is killed and replaced.",
        default=10.0,
        bounds=(0.1, 600),
        unit="seconds",
    )
    landlock: Literal["auto", "off"] = _option(
        words("auto", "off"),
        "Let workers keep only the rights to files that they need, where the kernel can.",
        default="auto",
    )
    instance: str = _option(
        INSTANCE,
        "Name of this server among several on a host: in titles, and for pyserver status.",
        default="",
    )


class Limits(Record):
    """What one client may take, and what a worker keeps in memory."""

    head_deadline: float = _option(
        SECONDS,
        "From the first byte of a request's head to its last, however it trickles in.",
        default=10.0,
        bounds=(0.01, 3600),
        unit="seconds",
    )
    keep_alive: float = _option(
        SECONDS,
        "How long an idle connection may wait for its next request.",
        default=65.0,
        bounds=(0.01, 86400),
        unit="seconds",
    )
    send_stall: float = _option(
        SECONDS,
        "How long a client may need for 64 KiB of its answer; with those taken it starts anew.",
        default=30.0,
        bounds=(0.01, 3600),
        unit="seconds",
    )
    body_deadline: float = _option(
        SECONDS,
        "How long the content of a request, which is read and thrown away, may take.",
        default=30.0,
        bounds=(0.01, 3600),
        unit="seconds",
    )
    receive_rate: int = _option(
        COUNT,
        "Of a head or content that has begun, what a client must send; 0: its deadline is enough.",
        default=0,
        bounds=(0, 1_000_000_000),
        unit="bytes a second",
    )
    send_rate: int = _option(
        COUNT,
        "Of its answer, what a client must take; 0: send_stall is enough.",
        default=0,
        bounds=(0, 1_000_000_000),
        unit="bytes a second",
    )
    rate_period: float = _option(
        SECONDS,
        "What both rates are averaged over; a client that is slower in one such period is ended.",
        default=5.0,
        bounds=(0.25, 600),
        unit="seconds",
    )
    requests: int = _option(
        COUNT,
        "Requests that a connection may have answered; the last answer ends it; 0: any number.",
        default=0,
        bounds=(0, 1_000_000_000),
        unit="requests",
    )
    head_bytes: int = _option(
        SIZE,
        "Largest head of a request, request line and fields together; beyond it 431.",
        default=HEAD_MAX_BYTES,
        bounds=(KIB, MIB),
        unit="bytes",
    )
    target_bytes: int = _option(
        SIZE,
        "Longest target of a request; beyond it 414.",
        default=TARGET_MAX_BYTES,
        bounds=(256, MIB),
        unit="bytes",
    )
    head_fields: int = _option(
        COUNT,
        "Field lines in the head of a request; beyond it 431.",
        default=FIELDS_MAX,
        bounds=(8, 10_000),
        unit="lines",
    )
    cache_bytes: int = _option(
        SIZE,
        "Memory for files that are kept ready to be sent, in each worker.",
        default=32 * MIB,
        bounds=(0, 64 * 1024 * MIB),
        unit="bytes",
    )
    cache_entries: int = _option(
        COUNT,
        "Files that are kept ready to be sent, in each worker.",
        default=4096,
        bounds=(1, 1_000_000),
        unit="files",
    )
    memo_bytes: int = _option(
        SIZE,
        "Memory for request heads and their answers, in each worker; 0: none are remembered.",
        default=8 * MIB,
        bounds=(0, 64 * 1024 * MIB),
        unit="bytes",
    )


class Clients(Record):
    """What one client may take: an IPv4 address, or the /64 of an IPv6 address; 0: as much as it likes."""

    connections: int = _option(
        COUNT,
        "Connections open at a time; further ones are closed.",
        default=0,
        bounds=(0, 1_000_000),
        unit="connections",
    )
    connection_rate: int = _option(
        COUNT,
        "New connections a second, in the long run; further ones are closed.",
        default=0,
        bounds=(0, 1_000_000),
        unit="connections a second",
    )
    connection_burst: int = _option(
        COUNT,
        "New connections that may come at once.",
        default=50,
        bounds=(1, 1_000_000),
        unit="connections",
    )
    request_rate: int = _option(
        COUNT,
        "Requests a second, in the long run; further ones are answered by 429 with Retry-After.",
        default=0,
        bounds=(0, 1_000_000),
        unit="requests a second",
    )
    request_burst: int = _option(
        COUNT,
        "Requests that may come at once.",
        default=100,
        bounds=(1, 1_000_000),
        unit="requests",
    )
    exempt: tuple[str, ...] = _option(
        NETWORKS,
        "Who is not counted; clients on UNIX sockets never are.",
        default=(),
    )
    dry_run: bool = _option(
        FLAG,
        "Count and log what would be refused, and refuse nothing.",
        default=False,
    )

    @property
    def limited(self) -> bool:
        """Whether there is anything to be kept."""
        return bool(self.connections or self.connection_rate or self.request_rate)


class Proxies(Record):
    """Who speaks for others: proxies in front of this server, and how they say who their client is."""

    trusted: tuple[str, ...] = _option(
        PEERS,
        "Peers that are believed; those on UNIX sockets by the name of the listener.",
        default=(),
    )
    protocol: Literal["off", "proxy", "forwarded", "x-forwarded-for"] = _option(
        words("off", "proxy", "forwarded", "x-forwarded-for"),
        "How a trusted peer says it: a PROXY header, which must come, or a field that it adds to.",
        default="off",
    )


class Log(Record):
    """What is written down of each request."""

    access: str = _option(
        LOG_TARGET,
        'The access log: a file (opened anew on SIGUSR1), "-" for standard output, or "off".',
        default="off",
    )
    format: Literal["combined", "json"] = _option(
        words("combined", "json"),
        "Lines of the access log: as Apache and nginx write them, or one JSON object each.",
        default="combined",
    )
    journal_requests: int = _option(
        COUNT,
        "Requests answered by 400 or above that the journal gets as records, at most.",
        default=100,
        bounds=(0, 10_000),
        unit="requests a second",
    )
    slow: float = _option(
        SECONDS,
        "Requests that take longer go to the journal, with where their time went; 0: none.",
        default=0.0,
        bounds=(0, 3600),
        unit="seconds",
    )


class Tracing(Record):
    """What tells one request from another, and where its time went."""

    request_id: bool = _option(
        FLAG,
        "Name each request, in its answer (X-Request-ID) and in logs; names of proxies are kept.",
        default=False,
    )
    server_timing: bool = _option(
        FLAG,
        "Tell each client in Server-Timing how long its request waited and took.",
        default=False,
    )

    @property
    def wanted(self) -> bool:
        """Whether answers say anything of it."""
        return self.request_id or self.server_timing


class Listen(Record):
    """An address to listen on; not used where systemd hands over its listeners (pyserver.socket)."""

    address: Address = _option(
        ADDRESS,
        "HOST:PORT, [HOST]:PORT or unix:/PATH; port 0 is any free one.",
        default=_REQUIRED,
    )


class Alias(Record):
    """A path of the site whose files lie in another folder; of several the longest is taken."""

    path: str = _option(
        FOLDER_PATH,
        "What the paths of requests begin with; the rest of them is looked up in the root of the alias.",
        default=_REQUIRED,
    )
    root: str = _option(
        OTHER_FOLDER,
        "Folder of the files; the same rules hold there as in the root of the site.",
        default=_REQUIRED,
    )


class Redirect(Record):
    """A page that moved; of several the first that fits is taken, also where there is a file."""

    source: str = _option(
        MOVED_FROM,
        'The path that moved; "*" at its end stands for all below it.',
        default=_REQUIRED,
        key="from",  # which Python keeps for itself
    )
    to: str = _option(
        MOVED_TO,
        'Where it is now; "*" at its end is what it stood for in from.',
        default=_REQUIRED,
    )
    status: int = _option(
        MOVED_STATUS,
        "For good (301, 308) or for now (302, 307).",
        default=301,
    )


class FieldRule(Record):
    """Fields to send with some paths; of several that set the same field the last one counts."""

    match: str = _option(
        PATTERN,
        'Names in any folder, or, with "/" in front, whole paths: "*" and "?" stay within a name, "**" does not.',
        default=_REQUIRED,
    )
    set: Mapping[str, str] = _option(
        FIELDS,
        "Names and values of the fields, but for those that the server makes itself; an empty value takes one away.",
        default=_REQUIRED,
    )


class Site(Record):
    """A tree of files to serve, to those who ask for one of its hosts."""

    root: str = _option(
        FOLDER,
        "Folder of the files; nothing outside of it is ever served.",
        default=_REQUIRED,
    )
    index: tuple[str, ...] = _option(
        NAMES,
        "What a folder answers with: the first of these files that it has.",
        default=("index.html",),
    )
    hosts: tuple[str, ...] = _option(
        HOSTS,
        "Who is asked for; the site without any, or else the first, answers for all other hosts.",
        default=(),
    )
    symlinks: Literal["beneath", "owner", "none"] = _option(
        words("beneath", "owner", "none"),
        "Links to follow: all that stay in the root; only those that belong to whom their target belongs to; none.",
        default="beneath",
    )
    dot_files: Literal["deny", "allow"] = _option(
        words("deny", "allow"),
        "Whether names with a dot in front are served; /.well-known/ always is, backups of editors never are.",
        default="deny",
    )
    clean_urls: bool = _option(
        FLAG,
        "Serve a.html as /a, and redirect /a.html there.",
        default=False,
    )
    fallback: str = _option(
        PAGE,
        "For applications of one page: served with 200 where nothing is and the path has no extension.",
        default="",
    )
    listing: bool = _option(
        FLAG,
        "List a folder that has no index.",
        default=False,
    )
    precompressed: bool = _option(
        FLAG,
        "Send the .zst, .br or .gz beside a file to clients that take it.",
        default=True,
    )
    compress: bool = _option(
        FLAG,
        "Compress text once and keep it in memory, where there is no such file beside it.",
        default=True,
    )
    security: Literal["off", "basic", "strict"] = _option(
        words("off", "basic", "strict"),
        "Fields that make browsers more careful with the pages.",
        default="off",
    )
    cors: tuple[str, ...] = _option(
        ORIGINS,
        "Origins whose scripts may read the files.",
        default=(),
    )
    immutable: bool = _option(
        FLAG,
        "Let clients keep files with a hash in their name (eight hexadecimal digits or more) for a year.",
        default=False,
    )
    errors: Mapping[int, str] = _option(
        PAGES,
        "Pages of the site that are sent with errors.",
        default={},
    )
    aliases: tuple[Alias, ...] = ()
    redirects: tuple[Redirect, ...] = ()
    fields: tuple[FieldRule, ...] = ()


TABLES: Final[Mapping[str, type[Record]]] = {
    "server": Server,
    "limits": Limits,
    "clients": Clients,
    "proxies": Proxies,
    "log": Log,
    "tracing": Tracing,
}
LISTS: Final[Mapping[str, type[Record]]] = {
    "listen": Listen,
    "site": Site,
    # Lists in each site, and below them what of Site they become.
    "site.alias": Alias,
    "site.redirect": Redirect,
    "site.fields": FieldRule,
}
IN_SITE: Final[Mapping[str, str]] = {"alias": "aliases", "redirect": "redirects", "fields": "fields"}


class Option(NamedTuple):
    """One row of the table."""

    name: str  # "server.threads"; in lists "site.root", "site.alias.path"
    attribute: str  # of the class of its table
    kind: Kind
    text: str
    default: Any
    bounds: Bounds | None
    unit: str

    @property
    def table(self) -> str:
        """The table or list that it belongs to."""
        return self.name.rpartition(".")[0]

    @property
    def key(self) -> str:
        """The name within its table."""
        return self.name.rpartition(".")[2]

    @property
    def in_list(self) -> bool:
        """Whether it belongs to a [[list]], of which there may be several."""
        return self.table in LISTS

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is MISSING

    @property
    def expected(self) -> str:
        """What to write: the kind with its bounds."""
        if self.bounds is None:
            return self.kind.written
        return f"{self.kind.written} from {self.shown(self.bounds[0])} to {self.shown(self.bounds[1])}"

    def shown(self, value: object) -> str:
        """Return a value of this option as an administrator writes it."""
        if self.kind is SIZE and isinstance(value, int):
            units = ((name, size) for name, size in UNITS.items() if value and value % size == 0)
            return next((f'"{value // size}{name}"' for name, size in units), str(value))
        if isinstance(value, dict):
            return "{}" if not value else literal(value)
        return f"{value:g}" if isinstance(value, float) else literal(value)

    def take(self, value: object, base: str) -> object:
        """Return what becomes of a written value; raises Refused."""
        taken = self.kind.read(value, base)
        if self.bounds and isinstance(taken, int | float):
            if taken < self.bounds[0]:
                raise Refused("is too small")
            if taken > self.bounds[1]:
                raise Refused("is too large")
        return taken


def _rows(table: str, part: type[Record]) -> Iterator[Option]:
    for attribute, field in part.FIELDS.items():
        if field.about:
            row = dict(field.about)
            yield Option(f"{table}.{row.pop('key') or attribute}", attribute, **row)


OPTIONS: Final[Mapping[str, Option]] = {
    option.name: option for table, part in (*TABLES.items(), *LISTS.items()) for option in _rows(table, part)
}


def options_of(table: str) -> dict[str, Option]:
    """Return the rows of one table by their keys."""
    return {option.key: option for option in OPTIONS.values() if option.table == table}


DEFAULT_LISTEN: Final = (Address.parse("127.0.0.1:8080"),)


class Config(Record):
    """The whole configuration: checked, and never changed again."""

    sites: tuple[Site, ...]
    server: Server = Server()
    limits: Limits = Limits()
    clients: Clients = Clients()
    proxies: Proxies = Proxies()
    log: Log = Log()
    tracing: Tracing = Tracing()
    listen: tuple[Address, ...] = DEFAULT_LISTEN
    files: tuple[str, ...] = ()  # what was read, in this order
    warnings: tuple[str, ...] = ()  # each one line

    @property
    def title(self) -> str:
        """What its processes are called, before what each of them is."""
        return f"pyserver@{self.server.instance}" if self.server.instance else "pyserver"

    def worker_count(self) -> int:
        """Return how many workers to run; "auto" counts the cores that this process may use."""
        if self.server.workers != "auto":
            return self.server.workers
        bounds = OPTIONS["server.workers"].bounds
        assert bounds is not None
        return min(len(os.sched_getaffinity(0)), int(bounds[1]))
