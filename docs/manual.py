"""The manual pages: `PYTHONPATH=service python3 -m docs.manual FOLDER`.

Owns:    FOLDER/man8/pyserver.8, made from the parser of the command line, and FOLDER/man5/pyserver.toml.5, made from
         the table of options; the words around them are here.
Used by: packaging/install.
"""

import os
import re
import sys
import time
from pathlib import Path
from typing import Final

from docs.commands import Argument, Command, commands
from docs.generate import TABLES_AND_LISTS, allowed, default_of, header_of

from pyserver import __version__
from pyserver.config import DEFAULT_FILE, DEFAULT_LISTEN
from pyserver.config.options import options_of


def pages() -> dict[str, str]:
    """Return each page by its place below /usr/share/man."""
    return {"man8/pyserver.8": command_page(), "man5/pyserver.toml.5": configuration_page()}


# -- roff (groff_man(7)) -----------------------------------------------------------------------------------


def escaped(text: str) -> str:
    """Return text that roff shows as it stands."""
    text = (
        text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga").replace("^", "\\(ha").replace("~", "\\(ti")
    )
    return re.sub(r"^(?=[.'])", r"\\&", text, flags=re.MULTILINE)


def prose(text: str) -> str:
    """Return paragraphs; what stands between backquotes is bold."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        lines = " ".join(paragraph.split())
        parts.append(re.sub(r"\\\(ga(.+?)\\\(ga", r"\\fB\1\\fR", escaped(lines)))
    return "\n.PP\n".join(parts)


def verbatim(text: str) -> str:
    """Return lines that are shown as they are."""
    return f".PP\n.nf\n.RS 4\n{escaped(text.rstrip())}\n.RE\n.fi"


def section(title: str, *parts: str) -> str:
    """Return parts under a heading."""
    return "\n".join([f'.SH "{escaped(title)}"', *parts])


def item(term: str, text: str) -> str:
    """Return a term, and beside it what it means."""
    return f".TP\n{term}\n{prose(text)}"


def title(name: str, number: int, part: str) -> str:
    """Return the head of a page."""
    at = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    date = time.strftime("%Y-%m-%d", time.gmtime(at))
    return (
        f'.\\" Written by docs/manual.py.\n.TH {name} {number} "{date}" "pyserver {__version__}" "{part}"\n.nh\n.ad l'
    )


# -- pyserver(8) ---------------------------------------------------------------------------------------------

THE_SERVICE: Final = (
    (
        "systemctl start pyserver",
        "Pages are served when it returns: those of `/var/www/pyserver`, until the configuration names others.",
    ),
    ("systemctl status pyserver", "Shows a live line: workers, requests per second, open connections, the queue."),
    (
        "journalctl -u pyserver",
        "The life of the service, as records; `journalctl -u pyserver WORKER=1` is that of one worker.",
    ),
    (
        "pyserver check && systemctl reload-or-restart pyserver",
        "After each change of the configuration. It is a reload, of which clients see nothing.",
    ),
    (
        "systemctl daemon-reload && systemctl restart pyserver",
        "After a change of its unit. Clients wait for a moment; none is refused.",
    ),
    (
        "systemctl stop pyserver.socket pyserver.service",
        "Both stop. The service alone would be started again by the next client: that is what its socket is for.",
    ),
    (
        "systemctl disable --now pyserver.socket pyserver.service",
        "Both stop, and stay so when the machine starts, and over upgrades of the package.",
    ),
)

ANOTHER_PORT: Final = (
    "systemd holds the listener, and so says where it is. `systemctl edit pyserver.socket` opens an editor; write",
    "[Socket]\nListenStream=\nListenStream=8080",
    "The empty line takes the former port away. Then restart both, in one command:",
    "systemctl restart pyserver.socket pyserver.service",
)

UPGRADES: Final = """\
An upgrade of the package leaves the socket alone. Where the units of the service did not change it is a reload, of
which clients see nothing; otherwise a restart: clients that come meanwhile wait, and answers under way are finished
within `server.drain`. If the new version does not take the configuration, the
one before it serves on, and the upgrade says so and what is wrong. Correct it, then `pyserver check && systemctl
restart pyserver`. Until then do not restart the service, for then the new version would start.

Files in `/etc/pyserver/conf.d` belong to the administrator alone, so no upgrade ever asks about them. The default
site is copied to `/var/www/pyserver` once and never touched again.
"""

SIGNALS: Final = (
    ("SIGTERM", "Finish the answers under way, then end; a second one ends at once."),
    ("SIGINT", "End at once."),
    ("SIGHUP", "Take up configuration and code anew, as `pyserver reload` does; only the log tells how it went."),
    ("SIGUSR1", "Open the access log anew, after it was renamed."),
)

FILES: Final = (
    (DEFAULT_FILE, "The configuration, pyserver.toml(5)."),
    ("/etc/pyserver/conf.d/*.toml", "Read after it, by name: the place for changes."),
    ("/var/www/pyserver", "The site that is served at first."),
    ("/var/log/pyserver", "The place for an access log, the only one that the service may write to."),
    ("/usr/share/doc/pyserver/examples/pyserver.toml", "Every option with its default."),
)


KEYS: Final = "The keys for --set are those of pyserver.toml(5), but for the lists.\n"


def command_page() -> str:
    """Return pyserver(8)."""
    first, *others = commands()
    parts = [
        title("PYSERVER", 8, "System administration"),
        section("NAME", f"pyserver \\- {escaped(_lower(first.text).rstrip('.').partition(':')[0])}"),
        section("SYNOPSIS", *(_synopsis(command) for command in others)),
        section("DESCRIPTION", prose(first.text + " Its listener is systemd's, its journal is systemd's journal.")),
        section("THE SERVICE", *(item(f"\\fB{escaped(command)}\\fR", text) for command, text in THE_SERVICE)),
        section(
            "ANOTHER PORT",
            prose(ANOTHER_PORT[0]),
            verbatim(ANOTHER_PORT[1]),
            f".PP\n{prose(ANOTHER_PORT[2])}",
            verbatim(ANOTHER_PORT[3]),
        ),
        section("UPGRADES", prose(UPGRADES)),
        section("COMMANDS", *(_command(command) for command in others)),
        section("SIGNALS", *(item(f"\\fB{name}\\fR", text) for name, text in SIGNALS)),
        section("FILES", *(item(f"\\fI{escaped(name)}\\fR", text) for name, text in FILES)),
        section("SEE ALSO", escaped("pyserver.toml(5), systemctl(1), journalctl(1), systemd.socket(5), ufw(8)")),
    ]
    return "\n".join(parts) + "\n"


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]


def _synopsis(command: Command) -> str:
    parts = [f"\\fBpyserver {command.name}\\fR"]
    parts += [f"\\fI{escaped(argument.metavar)}\\fR" for argument in command.positionals]
    among = {name: group for group in command.alternatives for name in group.names}
    for option in command.options:
        group = among.get(option.names[0])
        if group and option.names[0] == group.names[0]:
            each = " | ".join(_written(other) for other in command.options if among.get(other.names[0]) is group)
            parts.append(f"{{{each}}}" if group.required else f"[{each}]")
        elif not group and option.names[0] != "-h":
            parts.append(f"[{_written(option)}]" + ("..." if option.repeatable else ""))
    return ".HP\n" + " ".join(parts)


def _written(option: Argument) -> str:
    names = ", ".join(f"\\fB{escaped(name)}\\fR" for name in option.names)
    return f"{names} \\fI{escaped(option.metavar)}\\fR" if option.metavar else names


def _command(command: Command) -> str:
    parts = [f".SS \\fBpyserver {command.name}\\fR", prose(f"{command.text[0].upper()}{command.text[1:]}.")]
    parts += [item(f"\\fI{escaped(argument.metavar)}\\fR", argument.text) for argument in command.positionals]
    parts += [item(_written(option), option.text) for option in command.options if option.names[0] != "-h"]
    more = re.sub(r"^keys for --set(.+\n)+", KEYS, command.more, flags=re.MULTILINE)
    for block in re.split(r"\n\s*\n", more.strip()):
        parts.append(verbatim(block) if re.search(r"^  ", block, re.MULTILINE) else f".PP\n{prose(block)}")
    return "\n".join(parts)


# -- pyserver.toml(5) ------------------------------------------------------------------------------------------

SOURCES: Final = f"""\
The configuration is a TOML file, `{DEFAULT_FILE}`, and the files `conf.d/*.toml` beside it. Everything has a default
but the root of a site.

Later sources replace earlier ones: the defaults; the file; `conf.d/*.toml`, sorted by name, where tables merge key by
key, and the [[site]] of all these files together replace those of the file, as the [[listen]] do; `--set KEY=VALUE`;
the other options of `pyserver serve`. Relative paths start from the folder of the file that they are written in.

`pyserver check` validates the whole, looks at the files of the sites, and changes nothing. An error is one line that
says where it is and what to write instead.
"""

EXAMPLES: Final = (
    (
        "Two sites, told apart by the host that is asked for; the second answers for all others:",
        """\
[[site]]
hosts = ["example.org", "www.example.org"]
root = "/srv/example"

[[site]]
root = "/var/www/pyserver"
""",
    ),
    (
        "An access log, and browsers that are told to be careful:",
        """\
[log]
access = "/var/log/pyserver/access.log"

[[site]]
root = "/srv/example"
security = "basic"
errors = { 404 = "/404.html" }
""",
    ),
)


def configuration_page() -> str:
    """Return pyserver.toml(5)."""
    parts = [
        title("PYSERVER.TOML", 5, "File formats"),
        section("NAME", "pyserver.toml \\- configuration of pyserver(8)"),
        section("DESCRIPTION", prose(SOURCES)),
    ]
    for table, rows in TABLES_AND_LISTS.items():
        options = []
        for option in options_of(table).values():
            value = default_of(option)
            note = "has to be given" if option.required else f"{allowed(option)}; default: {value}"
            options.append(item(f"\\fB{option.key}\\fR", f"{option.text} ({note})"))
        without = f".PP\n{prose(f'Without any: {DEFAULT_LISTEN[0].text}.')}" if table == "listen" else ""
        parts.append(section(header_of(table), prose(rows.__doc__ or ""), *options, *filter(None, [without])))
    examples = [f"{prose(about)}\n{verbatim(text)}" for about, text in EXAMPLES]
    parts.append(section("EXAMPLES", "\n.PP\n".join(examples)))
    parts.append(section("SEE ALSO", "pyserver(8)"))
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    for place, page in pages().items():
        file = Path(sys.argv[1], place)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(page)
