"""The table of events and outcomes: boots each systemd, runs tests.systemd.life, prints what came of it.

Owns:    the machines, which go with the run, also on Ctrl-C and SIGTERM; the text of the table.
Never:   judges a time: figures are for readers. What must hold at any speed is judged, and makes the exit status 1.
Fails:   exit status 1 with one line where a machine cannot be booted; 130 when it was interrupted.
Used by: tests/systemd/events.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

from benchmarks.record import machine as this_machine
from benchmarks.record import today
from benchmarks.report import markdown, plain
from tests.service.client import STALL_S
from tests.systemd.image import SUITES, BuildError, image
from tests.systemd.life import NO_LIMIT, OF_ALL, OF_NGINX, OF_OURS, Impossible, Outcome, Peer, prepare, serving
from tests.systemd.machine import Machine, Unavailable
from tests.systemd.service import SHOWN, Service, install

DESCRIPTION = """\
Boot Debian with each systemd in a container, let happen to pyserver what happens to a service while keep-alive and
one-shot clients ask it, and print what became of them. nginx gets the same orders from the same clients."""

EXAMPLES = """\
examples:
  tests/systemd/events
  tests/systemd/events --suites trixie --events restart,reload --markdown table.md
"""

HEADER = [
    "event",
    "server",
    "answered",
    "refused",
    "reset",
    "truncated",
    "5xx",
    "slow",
    "stall in ms",
    "idle kept",
    "and",
]
KINDS = ("Refused", "Reset", "Truncated", "ServerError", "Slow")

# Debian's nginx with its own configuration, but for what it serves.
NGINX_SITE = """\
server {
    listen 80 default_server;
    listen [::]:80 default_server;
    root /srv/site;
    index index.html;
}
"""


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    os.nice(options.nice)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        pages, amiss = [], []
        for suite in options.suites:
            rows, busy = [HEADER], busy_with_others()
            with Machine.boot(image(suite, ("nginx",)), SHOWN) as machine:
                for server, outcome in outcomes(machine, options.events):
                    shown = row(server, outcome)
                    print(plain([shown]), flush=True)
                    rows.append(shown)
                    amiss += [f"{suite}: {outcome.event}: {what}" for what in outcome.amiss if server == "pyserver"]
                said = machine.output("systemctl", "--version").split()[1]
                python = machine.output("python3", "--version").split()[1]
                nginx = machine.output("sh", "-c", "nginx -v 2>&1").strip().rpartition("/")[2]
            about = f"systemd {said}, Debian {suite}, Python {python}, nginx {nginx}; others: {busy:.0%}"
            pages.append(f"{about}\n\n{markdown(rows)}\n")
            print(about)
    except (Unavailable, BuildError) as error:
        print(f"events: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("events: interrupted", file=sys.stderr)
        return 130
    if options.markdown:
        options.markdown.write_text("\n".join([f"{today()}; {this_machine()}.\n", *pages]))
    if amiss:
        print("\n".join(["does not hold:", *amiss]), file=sys.stderr)
    return 1 if amiss else 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tests/systemd/events",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        *("--suites", "--suite"), metavar="LIST", type=of(SUITES), default=list(SUITES), help=f"of {', '.join(SUITES)}"
    )
    known = [*OF_ALL, *OF_OURS]
    parser.add_argument("--events", metavar="LIST", type=of(known), default=known, help=f"of {', '.join(known)}")
    parser.add_argument(
        "--nice", metavar="N", type=int, default=0, help="niceness of machines and clients (default: %(default)s)"
    )
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write the tables, machine and versions")
    return parser.parse_args(arguments)


def of(known: Sequence[str] | dict[str, int]) -> Callable[[str], list[str]]:
    def chosen(text: str) -> list[str]:
        unknown = [name for name in text.split(",") if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}")
        return text.split(",")

    return chosen


def busy_with_others() -> float:
    """Return which share of its time the machine works for others, as seen in two seconds."""

    def read() -> tuple[int, int]:
        user, nice, system, idle, wait, *_ = map(int, Path("/proc/stat").read_text().split()[1:9])
        return user + nice + system, idle + wait

    before = read()
    time.sleep(2)
    worked, rested = (after - earlier for after, earlier in zip(read(), before, strict=True))
    return worked / (worked + rested)


def outcomes(machine: Machine, events: Sequence[str]) -> Iterator[tuple[str, Outcome]]:
    """Yield each outcome with the name of the server that it is of."""
    machine.output("systemctl", "disable", "--now", "nginx")
    machine.write("/etc/nginx/sites-enabled/default", NGINX_SITE)
    machine.write(
        "/run/systemd/system/nginx.service.d/often.conf", f"[Unit]\nStartLimitIntervalSec=0\n[Service]\n{NO_LIMIT}"
    )
    install(machine)
    prepare(machine)
    service = Service(machine)
    for name, befall in OF_ALL.items():
        if name in events:
            service.reset()
            with serving(service) as peer:
                yield "pyserver", befall(peer)
            machine.output("systemctl", "start", "nginx")
            yield "nginx", befall(Peer(machine, "nginx"))
            machine.output("systemctl", "stop", "nginx")
    for name, happen in OF_OURS.items():
        if name in events:
            service.reset()
            try:
                yield "pyserver", happen(service)
            except Impossible as why:
                yield "pyserver", Outcome(name, told=[f"not tried: {why}"])
            service.stop()
            service.assert_nothing_left()
            if name in OF_NGINX:
                yield "nginx", OF_NGINX[name](machine)


def row(server: str, outcome: Outcome) -> list[str]:
    return [
        outcome.event,
        server,
        f"{outcome.answered:,}" if outcome.answered else "",
        *(str(outcome.lost[kind]) for kind in KINDS),
        stall(outcome.stalls),
        f"{outcome.kept} of {outcome.idle}" if outcome.idle else "",
        "; ".join(outcome.told + (outcome.amiss if server == "pyserver" else [])),
    ]


def stall(stalls: Sequence[float]) -> str:
    """Return the longest waits after each event as text: the median, and the longest of all."""
    if not stalls:
        return ""
    if max(stalls) <= STALL_S:
        return f"< {1000 * STALL_S:.0f}"
    middle, longest = 1000 * median(stalls), 1000 * max(stalls)
    return f"{longest:.0f}" if len(stalls) == 1 else f"{middle:.0f}, at most {longest:.0f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
