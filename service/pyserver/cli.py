"""The command line: which command, with which configuration; each command's work is done elsewhere.

Owns:    the options and their help, and the exit codes: 0, 1 the work failed, 2 wrong usage, 78 bad configuration.
Never:   imports what answers clients, except in a worker that was just forked (enter_worker): what this module
         imports is in the master's memory too.
Fails:   with an exit code and one line on stderr; a traceback is a bug of ours.
Used by: the script `pyserver`, __main__.
"""

import argparse
import contextlib
import gc
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from pyserver import __version__, signals
from pyserver.config import (
    DEFAULT_FILE,
    DEFAULT_LISTEN,
    OPTIONS,
    Alias,
    ConfigError,
    Option,
    Override,
    Site,
    load,
    nearest,
    printable,
)

CONTROL_PATH: Final = "/run/pyserver-control.sock"  # of pyserver-control.socket (ipc.control)
EX_CONFIG: Final = 78  # sysexits.h
_ERR, _WARNING, _INFO = 3, 4, 6  # syslog(3)
_FORMATS: Final = ("gz", "br", "zst")  # endings of siblings (files.codings)
_JOBS_MAX: Final = 256
_COLUMNS: Final = 80  # where nobody tells how wide the terminal is
_PERIOD_MIN_S, _PERIOD_MAX_S = 0.2, 60.0
EX_INTERRUPTED: Final = 130  # what a shell reports for SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    parser = build_parser(*arguments[:1])
    if arguments and arguments[0] not in _COMMANDS and not arguments[0].startswith("-"):
        close = nearest(arguments[0], _COMMANDS)
        instead = f"did you mean '{close}'?" if close else f"known are {', '.join(_COMMANDS)}"
        parser.error(f"unknown command '{printable(arguments[0])}'; {instead}")
    given = parser.parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = given.run
    if run is not serve:  # who serves has more to load; clients wait for that
        gc.enable()
    try:
        code = run(given)
        sys.stdout.flush()
    except ConfigError as error:
        _complain(str(error))
        return EX_CONFIG
    except KeyboardInterrupt:
        return EX_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output left, as `head` does. The interpreter would try to flush once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())
        return 1
    return code


# -- the commands --------------------------------------------------------------------------------


def serve(given: argparse.Namespace) -> NoReturn:
    """Serve until told to stop."""
    with signals.held_back():
        config = load(given.config, [*given.overrides, *_default_site(given)])
        if config.files and given.config is None:
            _complain(f"pyserver: using {config.files[0]}", _INFO)
        from pyserver.master import main as master_main  # noqa: PLC0415  `check` and `status` do without

        code = master_main.run(config, enter_worker)  # which enables the collector
    _leave(code)


def _leave(code: int) -> NoReturn:
    """End this process now: all is given back, and whoever waits for its end waits for no interpreter to tidy up."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, AttributeError):  # nobody reads it any more, or there is none (`>&-`)
            stream.flush()
    os._exit(code)


def _default_site(given: argparse.Namespace) -> list[Override]:
    """Return what is served where nothing says what to serve: the page that says that it works."""
    named = given.config is not None or any(override.option == "--root" for override in given.overrides)
    if named or os.path.lexists(DEFAULT_FILE):
        return []
    from pyserver import units  # noqa: PLC0415  only who starts without anything needs it

    folder = units.data("www")
    if folder is None:
        return []
    _complain(f"pyserver: neither --root nor {DEFAULT_FILE}: serving the page that comes with pyserver", _INFO)
    return [Override("--root", str(folder))]


def enter_worker(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  between the two main modules; not ours to know
    """Become a worker. The master calls this in the child, so that only there the code for clients is loaded.

    It is that of the master's own version (retained), whatever lies on the disk by then.
    """
    gc.disable()
    from pyserver.worker import main as worker_main  # noqa: PLC0415  the reason why this function exists

    gc.enable()
    return worker_main.run(*args, **kwargs)


def check(given: argparse.Namespace) -> int:
    """Load and validate, and say what would be served."""
    config = load(given.config or DEFAULT_FILE)
    for warning in config.warnings:  # `serve` leaves them to the master's log
        _complain(warning, _WARNING)
    sites = f"root {config.sites[0].root}" if len(config.sites) == 1 else f"{len(config.sites)} sites"
    what = [_counted(config.worker_count(), "worker"), _counted(config.server.threads, "thread"), sites]
    if given.walk:
        from pyserver.files.resolve import RootError  # noqa: PLC0415  `serve` loads nothing that answers clients

        try:
            what.append(_counted(sum(map(_walk, config.sites)), "file"))
        except RootError as error:  # the workers would say so, and the master that none came up
            _complain(f"{config.files[0]}: {error}")
            return EX_CONFIG
    print(printable(f"{config.files[0]}: ok ({', '.join(what)})"))
    return 0


def _walk(site: Site) -> int:
    """Look at all files of a site, tell what is the matter with them, and return how many there are."""
    from pyserver.files.resolve import Root  # noqa: PLC0415  as above
    from pyserver.files.survey import Policy, survey  # noqa: PLC0415
    from pyserver.handlers.taken import Taken  # noqa: PLC0415

    policy = Policy(
        dot_files=site.dot_files == "allow",
        precompressed=site.precompressed,
        indexes=tuple(name.encode() for name in site.index),
        clean_urls=site.clean_urls,
    )
    pages = {page.encode() for page in (site.fallback, *site.errors.values()) if page}
    # An alias for what lies there anyway, as others' configurations have it, hides nothing.
    hiding = site.replaced(
        aliases=tuple(each for each in site.aliases if not _is_same(site.root + each.path, each.root))
    )
    files = 0
    for alias in (*sorted(site.aliases, key=lambda alias: -len(alias.path)), Alias("/", site.root)):
        path = alias.path.encode()
        below = {page for page in pages if page.startswith(path)}  # the longest alias has it
        pages -= below
        root, here = Root(alias.root, site.symlinks), policy._replace(taken_by=Taken(hiding, alias.path).by)
        walk = survey(root, here, [page.removeprefix(path[:-1]) for page in below])
        for line in walk.lines():
            _complain(line, _WARNING)
        files += walk.files
    return files


def _is_same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def explain(given: argparse.Namespace) -> int:
    """Answer one request here, and print what was decided on the way."""
    config = load(given.config, given.overrides)
    for warning in config.warnings:
        _complain(warning, _WARNING)
    from pyserver.files.resolve import RootError  # noqa: PLC0415  as above
    from pyserver.handlers.explain import explain as decide  # noqa: PLC0415

    lines = [f"{given.method} {given.target} HTTP/1.1", *given.fields]
    if not any(line.partition(":")[0].lower() == "host" for line in given.fields):
        lines.insert(1, "Host: localhost")
    try:
        explained = decide(config, os.fsencode("\r\n".join([*lines, "", ""])))
    except RootError as error:
        _complain(str(error))
        return EX_CONFIG
    width = max(len(step.about) for step in explained.steps)
    steps = [f"  {step.about:{width}}  {step.what}" for step in explained.steps]
    for line in (*lines, "", *steps, "", *explained.head.decode("latin-1").split("\r\n")[:-2]):
        print(printable(line))
    return 0


def status(given: argparse.Namespace) -> int:
    """Look once at the shared segment of a running server."""
    from pyserver.ipc import observe  # noqa: PLC0415  `check` does without

    return observe.main(given.name, as_json=given.json, with_requests=given.requests)


def top(given: argparse.Namespace) -> int:
    """Show a running server, live."""
    from pyserver.top import main as work  # noqa: PLC0415  only who looks needs a terminal's library

    return work.main(given.name, period=given.period, once=given.once, log=given.log)


def reload(given: argparse.Namespace) -> int:
    """Order a running server to take up configuration and code anew."""
    from pyserver.ipc import control  # noqa: PLC0415  `check` does without

    return control.main(given.control, given.name, given.within)


def compress(given: argparse.Namespace) -> int:
    """Write coded variants beside the files of a tree."""
    from pyserver import compress as work  # noqa: PLC0415  nothing else needs its libraries

    return work.main(given.root, given.level, given.formats, given.jobs)


def units(given: argparse.Namespace) -> int:
    """Print or write what a package would have put in its places."""
    from pyserver import units as work  # noqa: PLC0415  no other command needs it

    try:
        command = os.path.realpath(given.command_path) if given.command_path else work.this_command()
        if given.install is None:
            for file in work.files(command):
                print(f"# /{file.place}\n{file.content.decode()}")
            return 0
        warning = work.check_command(Path(given.install), command)
        os.umask(0o022)
        for line in work.install(Path(given.install), command):
            print(printable(line))
        if warning:
            _complain(f"pyserver: {warning}", _WARNING)
    except (work.Unusable, OSError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        _complain(f"pyserver: {error}")
        return 1
    print(_UNITS_NEXT, end="")
    return 0


def _complain(line: str, priority: int = _ERR) -> None:
    """Write one line for the administrator; in the journal it gets its priority (sd-daemon(3))."""
    from pyserver.sd.journal import stderr_is_journal  # noqa: PLC0415  only who complains needs it

    mark = f"<{priority}>" if stderr_is_journal() else ""
    print(f"{mark}{printable(line)}", file=sys.stderr, flush=True)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


# -- the options ---------------------------------------------------------------------------------


class Flag(NamedTuple):
    """An option of `serve` that becomes an Override: what config.reading knows under the same name."""

    name: str
    metavar: str
    text: str
    option: Option | None = None  # the row of the table that it sets

    @property
    def help(self) -> str:
        """The help text, with bounds and default from the table."""
        notes = []
        if self.option and self.option.bounds:
            notes.append(f"{self.option.shown(self.option.bounds[0])} to {self.option.shown(self.option.bounds[1])}")
        if self.option and not self.option.required:
            notes.append(f"default: {self.option.shown(self.option.default)}")
        text = f"{self.text} ({', '.join(notes)})" if notes else self.text
        return text.replace("%", "%%")


_ROOT: Final = "serve the files of this folder; replaces the [[site]] of the configuration"
_BIND: Final = f"""\
listen here: 127.0.0.1:8080, [::1]:8080 or unix:/run/x.sock; port 0 is any free one; may be repeated; replaces
[[listen]]; not used where systemd hands over listeners (default: {DEFAULT_LISTEN[0].text})"""

FLAGS: Final = (
    Flag("--root", "DIR", _ROOT),
    Flag("--bind", "ADDRESS", _BIND),
    Flag("--workers", "N", 'worker processes, or "auto": one for each core', OPTIONS["server.workers"]),
    Flag("--threads", "N", "threads of each worker", OPTIONS["server.threads"]),
    Flag("--access-log", "PATH|off", 'write each request to this file; "-" is standard output', OPTIONS["log.access"]),
    Flag("--set", "KEY=VALUE", "set any key of a table, see below; may be repeated"),
)


class _Note(argparse.Action):
    """Keep an option as it was written: config judges it, and names it in its message."""

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        _option_string: str | None = None,
    ) -> None:
        namespace.overrides = [*namespace.overrides, Override(self.option_strings[0], str(values))]


def build_parser(wanted: str = "") -> argparse.ArgumentParser:
    """Return the parser of the whole command line, from which completions and man pages are made too.

    Of a command that is `wanted`, of that one alone: clients wait for `serve`.
    """
    parser = argparse.ArgumentParser("pyserver", description=_PROGRAM, epilog=_PROGRAM_MORE, **_AS_WRITTEN)
    parser.add_argument("--version", action="version", version=f"pyserver {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for name in (wanted,) if wanted in _COMMANDS else _COMMANDS:
        add, run, text, more = _COMMANDS[name]
        command = commands.add_parser(name, help=text, description=_sentence(text), epilog=more, **_AS_WRITTEN)
        command.set_defaults(run=run)
        add(command)
    return parser


def _add_serve(command: argparse.ArgumentParser) -> None:
    command.set_defaults(overrides=())
    _add_config(command, f"default: {DEFAULT_FILE}, if it exists and --root is not given")
    for flag in FLAGS:
        command.add_argument(flag.name, metavar=flag.metavar, help=flag.help, action=_Note, default=argparse.SUPPRESS)


def _add_check(command: argparse.ArgumentParser) -> None:
    _add_config(command, f"default: {DEFAULT_FILE}")
    text = "do not look at the files of the sites"
    command.add_argument("--no-walk", action="store_false", dest="walk", help=text)


def _add_explain(command: argparse.ArgumentParser) -> None:
    command.set_defaults(overrides=())
    command.add_argument("method", metavar="METHOD", help="GET, HEAD or any other")
    command.add_argument("target", metavar="TARGET", help="what is asked for: /path?query, or http://host/path?query")
    text = "a field of the request, like 'Range: bytes=0-99'; may be repeated (without a Host it is localhost)"
    command.add_argument("-H", metavar="FIELD", dest="fields", action="append", default=[], help=text)
    _add_config(command, f"default: {DEFAULT_FILE}, if it exists and --root is not given")
    command.add_argument("--root", metavar="DIR", help=FLAGS[0].help, action=_Note, default=argparse.SUPPRESS)


_NAME: Final = "of the instance, or of its shared segment, where several run"


def _add_status(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
    command.add_argument("--requests", action="store_true", help="tell what each thread and each request is at")
    command.add_argument("--name", metavar="NAME", help=_NAME)


def _add_top(command: argparse.ArgumentParser) -> None:
    text = "from one look to the next, 0.2 to 60 (default: 1)"
    command.add_argument("--period", metavar="SECONDS", type=_period, default=1.0, help=text)
    command.add_argument("--once", action="store_true", help="print what happened in one period, and end")
    command.add_argument(
        "--log", metavar="FILE", help="access log to take paths and clients from (default: the server's)"
    )
    command.add_argument("--name", metavar="NAME", help=_NAME)


def _add_reload(command: argparse.ArgumentParser) -> None:
    where = command.add_mutually_exclusive_group()
    where.add_argument("--control", metavar="PATH", help=f"the server's control socket (default: {CONTROL_PATH})")
    where.add_argument("--name", metavar="NAME", help=f"{_NAME} without systemd's control socket")
    text = "how long to wait for the outcome (default: 90)"
    command.add_argument("--within", metavar="SECONDS", type=_seconds, default=90.0, help=text)


def _add_compress(command: argparse.ArgumentParser) -> None:
    command.add_argument("root", metavar="ROOT", help="the folder, as in [[site]] root")
    command.add_argument("--level", choices=("fast", "good", "best"), default="best", help="default: best")
    command.add_argument(
        "--formats", metavar="LIST", type=_formats, default=(), help="of gz, br, zst (default: all that are installed)"
    )
    cores = len(os.sched_getaffinity(0))
    command.add_argument(
        "--jobs", metavar="N", type=_jobs, default=cores, help="files at a time (default: one for each core)"
    )


def _add_units(command: argparse.ArgumentParser) -> None:
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--print", action="store_true", help="print each file, with its place above it")
    what.add_argument("--install", metavar="DIR", help="write them to their places below DIR; / is this system")
    text = "the command of the service (default: the one that runs)"
    command.add_argument("--command", metavar="FILE", dest="command_path", help=text)


def _formats(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in _FORMATS:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(_FORMATS)}")
    return names


def _seconds(text: str) -> float:
    if not (text.isascii() and text.isdecimal() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, 1 or more")
    return float(text)


def _period(text: str) -> float:
    try:
        period = float(text)
    except ValueError:
        period = 0.0
    if not _PERIOD_MIN_S <= period <= _PERIOD_MAX_S:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of seconds from {_PERIOD_MIN_S} to {_PERIOD_MAX_S:g}"
        )
    return period


def _jobs(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= _JOBS_MAX):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {_JOBS_MAX}")
    return int(text)


def _add_config(command: argparse.ArgumentParser, default: str) -> None:
    text = f"read this file, and conf.d/*.toml beside it ({default})"
    command.add_argument("--config", metavar="FILE", help=text)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


class _AsWideAsTheTerminal(argparse.RawDescriptionHelpFormatter):
    """A form of the help. It is asked at each start: argparse asks it how options will look, to be sure that they can.

    How wide the terminal is argparse learns from shutil, which loads archives for that: 2 ms that clients wait for.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    told = os.environ.get("COLUMNS", "")
    if told.isascii() and told.isdecimal() and int(told):
        return int(told)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or _COLUMNS
    except (ValueError, OSError, AttributeError):  # it is no terminal, or closed
        return _COLUMNS


# Not abbreviated: `--re` in a unit file would mean something else one day.
_AS_WRITTEN: Final[dict[str, Any]] = {
    "formatter_class": _AsWideAsTheTerminal,
    "allow_abbrev": False,
}


# -- the words -------------------------------------------------------------------------------------

_PROGRAM: Final = "A web server for Linux that is of systemd: it serves a folder over HTTP/1.1."
_SERVE: Final = "serve a folder, in the foreground"
_CHECK: Final = "validate the configuration, look at the files, and change nothing"
_EXPLAIN: Final = "answer one request here, and say why it is answered so"
_RELOAD: Final = "take up configuration and code anew, without losing a connection"
_STATUS: Final = "look once at a running server, also at a hung one"

_TOP: Final = "show a running server, live, on the terminal"

_COMPRESS: Final = "write compressed variants beside the files of a folder"

_UNITS: Final = "print or install units, account and all else that a package would bring"

_EXIT_CODES: Final = """\
exit codes:
  0   done
  1   the work failed
  2   wrong usage
  78  bad configuration: the line on standard error says where, and what to write instead
"""

_PROGRAM_MORE: Final = f"""\
examples:
  pyserver serve --root /srv/www       that folder, on http://127.0.0.1:8080/
  pyserver check                       is {DEFAULT_FILE} right?
  systemctl start pyserver             the service, which systemd hands its listeners

{_EXIT_CODES}
pyserver COMMAND --help tells more."""


def _keys() -> str:
    """Return the keys for --set: those of tables, since the lists have options of their own."""
    rows = [option for option in OPTIONS.values() if not option.in_list]
    width = max(len(f"{row.name}={row.shown(row.default)}") for row in rows)
    return "\n".join(f"  {f'{row.name}={row.shown(row.default)}':{width}}  {row.text}" for row in rows)


_SERVE_MORE: Final = f"""\
keys for --set, with their defaults:
{_keys()}

Where neither --root nor a file says what to serve, it is the page that comes with pyserver.
Later ones replace earlier ones: defaults, the file, conf.d/*.toml by name, --set, the other options.

examples:
  pyserver serve --root .
  pyserver serve --root /srv/www --bind '[::1]:8080' --bind unix:/run/www.sock --access-log -
  pyserver serve --config /etc/pyserver/pyserver.toml --set limits.keep_alive=5

SIGTERM finishes the answers under way, then ends; a second one, or SIGINT, ends at once.
SIGHUP takes up configuration and code anew, as `pyserver reload` does. SIGUSR1 opens the access log anew.

{_EXIT_CODES}"""

_CHECK_MORE: Final = f"""\
Then it looks at the files of the sites and warns of those that clients will not get, or should not: files that cannot
be read, links that leave the root, files that an alias or a redirect hides, old compressed siblings, backups, .git.
Run it as the user who serves: the superuser can read everything.

examples:
  pyserver check
  pyserver check --config ./pyserver.toml
  pyserver check --no-walk             the configuration alone

{_EXIT_CODES.replace("done", "it can be served as it is; warnings do not count")}"""

_EXPLAIN_MORE: Final = f"""\
Nothing is sent anywhere, and no server needs to run: the configuration and the files are looked at as the server looks
at them, with the rights of who runs this.

examples:
  pyserver explain GET /
  pyserver explain GET http://example.org/old/page.html
  pyserver explain HEAD /video.mp4 -H 'Range: bytes=0-99' -H 'If-Range: "abc"'
  pyserver explain GET /.git/config --root /srv/www

{_EXIT_CODES}"""

_STATUS_MORE: Final = """\
examples:
  pyserver status
  pyserver status --json
  pyserver status --requests           what each thread does, and for whom

exit codes:
  0   the server was found
  1   it was not
  2   wrong usage
"""

_TOP_MORE: Final = """\
Rates and percentiles are of the time since the look before. Requests that are under way are those that take longer
than a round of their worker; most never do. Paths and clients are those that come most often in the access log, of
which a sample is read where it grows fast; without a log that may be read there are none. For the server it is no work.

keys:
  q   quit (also ^C)
  p   pause, and go on
  s   sort workers by number, requests, open connections, busy threads

examples:
  pyserver top
  pyserver top --period 5
  pyserver top --once | less

exit codes:
  0   it was shown
  1   there is no server, or no terminal that is known
  2   wrong usage, or the output is no terminal
"""

_RELOAD_MORE: Final = """\
What `systemctl reload pyserver` runs. The server first tries the new configuration and the new code in a process of its
own. If a worker does not come up there, nothing changes, and the reason is on standard error. Otherwise new workers
follow those that serve: these finish what they have, and leave idle connections to the new ones. Listeners stay as they
are. SIGHUP to the master does the same, and nobody is told the outcome but the log.

Root may order it, and who is in the group of the server.

examples:
  pyserver reload                      the service; or the only server that runs, where there is no service
  pyserver reload --name pyserver.4711

exit codes:
  0   the new workers serve
  1   they do not; those before them do
  2   wrong usage
"""

_COMPRESS_MORE: Final = """\
Writes a.css.gz, a.css.br and a.css.zst beside a.css, which the server then sends to whoever can decode them. What is
up to date is left alone, so run it after each deployment, or as its last step. Left out: hidden files, types that are
compressed already, files below 256 bytes, and variants that would not be smaller by 5 %. Links that lead out of the
folder are not followed. It may be interrupted at any time.

br and zst need the packages python3-brotli and python3-zstandard.

examples:
  pyserver compress /srv/www
  pyserver compress /srv/www --formats gz,br --level good --jobs 2

exit codes:
  0   done
  1   a file could not be read, or a variant not written; the others are done
  2   wrong usage, or the library of a format is missing
"""

_UNITS_MORE: Final = f"""\
For an installation by pip or pipx: units, the account, the message catalog, rotation of the log, examples, and, unless
they are there already, {DEFAULT_FILE} and a first site in /var/www/pyserver. The units name the command
that runs. It must lie where the service can see it: in a venv below /opt or /srv, not in a home or in /tmp. A command
that is not there is refused if DIR is /, and warned of if it is another. Packages of a distribution need none of this.

examples:
  pyserver units --print | less
  pyserver units --install /           then do what it says

exit codes:
  0   done
  1   there can be no units for this command, or a file could not be written
  2   wrong usage
"""

_UNITS_NEXT: Final = """\
next, as root:
  systemd-sysusers && journalctl --update-catalog && systemctl daemon-reload
  systemctl enable --now pyserver.socket pyserver.service
"""


class _Command(NamedTuple):
    """One command: what takes its options, what runs it, what it does in a few words, and what its help says below."""

    add: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    text: str
    more: str


_COMMANDS: Final = {
    "serve": _Command(_add_serve, serve, _SERVE, _SERVE_MORE),
    "check": _Command(_add_check, check, _CHECK, _CHECK_MORE),
    "explain": _Command(_add_explain, explain, _EXPLAIN, _EXPLAIN_MORE),
    "status": _Command(_add_status, status, _STATUS, _STATUS_MORE),
    "top": _Command(_add_top, top, _TOP, _TOP_MORE),
    "reload": _Command(_add_reload, reload, _RELOAD, _RELOAD_MORE),
    "compress": _Command(_add_compress, compress, _COMPRESS, _COMPRESS_MORE),
    "units": _Command(_add_units, units, _UNITS, _UNITS_MORE),
}
