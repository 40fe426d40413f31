"""Write what is made from tables in the code: `PYTHONPATH=service python3 docs/generate.py`.

Owns:    docs/options.md and docs/security.md; of systemd/ pyserver.toml, pyserver.catalog and the units of instances. A
         test fails when they are not what this writes.
Used by: whoever changed pyserver.config.options, pyserver.handlers.security, pyserver.sd.events or a unit.
"""

from pathlib import Path
from typing import Final

from pyserver.config import DEFAULT_FILE, DEFAULT_LISTEN, LISTS, TABLES, Option
from pyserver.config.kinds import COUNT_OR_AUTO, LOG_TARGET, NAMES, SIZE
from pyserver.config.options import options_of
from pyserver.config.sitekinds import HOSTS, ORIGINS, PAGE, PAGES
from pyserver.handlers.security import PRESETS
from pyserver.sd.events import catalog

PROJECT: Final = Path(__file__).resolve().parent.parent

TABLES_AND_LISTS: Final = {**TABLES, **LISTS}


def header_of(table: str) -> str:
    """Return the line that begins a table."""
    return f"[[{table}]]" if table in LISTS else f"[{table}]"


def default_of(option: Option) -> str:
    """Return the default as it is written in the file, or the example where there is no default."""
    return option.kind.example if option.required else option.shown(option.default)


def allowed(option: Option) -> str:
    """Return what may be written, with its unit."""
    if option.bounds is None:
        return option.kind.written
    low, high = (option.shown(bound) for bound in option.bounds)
    instead = '"auto" or ' if option.kind is COUNT_OR_AUTO else ""
    return f"{instead}{low} to {high}" + ("" if option.kind is SIZE else f" {option.unit}")


# -- docs/options.md -----------------------------------------------------------------------------

INTRODUCTION: Final = f"""\
# Options

<!-- Written by docs/generate.py from the table in service/pyserver/config/options.py: change it there. -->

The configuration is one [TOML](https://toml.io/en/v1.0.0) file, `{DEFAULT_FILE}`, and the files
`conf.d/*.toml` beside it. Everything has a default but the root of the site:

```toml
[[site]]
root = "/var/www/pyserver"
```

Later sources replace earlier ones:

1. the defaults below;
2. the file: what `--config` names, else `{DEFAULT_FILE}` if it exists and `--root` is not given;
3. `conf.d/*.toml` beside that file, sorted by name: tables merge key by key; the `[[site]]` of all of them together,
   one file for each site if you like, replace those of the file above, and so do the `[[listen]]`;
4. `--set KEY=VALUE`, as in `--set server.threads=32`: a TOML value, or the string as it stands;
5. `--root`, `--bind`, `--workers`, `--threads`, `--access-log`.

Relative paths start from the folder of the file that they are written in, and on the command line from the working
folder. `pyserver check` validates the whole, looks at the files of the sites, and changes nothing. Its warnings leave
the exit code 0; an error is one line, with exit code 78:

```text
{DEFAULT_FILE}:12: unknown key 'worker' in [server]; did you mean 'workers'?
```
"""

COLUMNS: Final = ("key", "default", "may be", "meaning")


def options_page() -> str:
    """Return the text of docs/options.md."""
    parts = [INTRODUCTION]
    for table, rows in TABLES_AND_LISTS.items():
        lines = [f"\n## `{header_of(table)}`\n", f"{rows.__doc__}\n", _row(COLUMNS), _row(["---"] * len(COLUMNS))]
        for option in options_of(table).values():
            default = "none, has to be given" if option.required else f"`{option.shown(option.default)}`"
            lines.append(_row((f"`{option.key}`", default, allowed(option), option.text)))
        if table == "listen":
            lines.append(f"\nWithout any: `{DEFAULT_LISTEN[0].text}`.")
        parts.append("\n".join(lines) + "\n")
    return "".join(parts)


def _row(cells: tuple[str, ...] | list[str]) -> str:
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"


# -- docs/security.md ----------------------------------------------------------------------------

ABOUT_SECURITY: Final = """\
# Security fields

<!-- Written by docs/generate.py from the tables in service/pyserver/handlers/security.py: change them there. -->

Fields that make browsers more careful with the pages of a site, by its option `security`. Who might do harm to the
server, and what stands in the way, is in [threats.md](threats.md).

```toml
[[site]]
root = "/var/www/pyserver"
security = "basic"              # "off" is the default
```

They go with every answer, errors and redirects included. `X-Content-Type-Options: nosniff` is sent in any case.
`Strict-Transport-Security` is not among them: it must not be sent over plain HTTP (RFC 6797, 7.2). `[[site.fields]]`
changes one, or with the value `""` takes it away:

```toml
[[site.fields]]
match = "/widget/**"
set = { "X-Frame-Options" = "", "Content-Security-Policy" = "default-src 'self'; frame-ancestors https://example.org" }
```
"""

PRESET_INTRODUCTIONS: Final = {
    "basic": "Nothing in it breaks a page that works without it, unless other sites show it in a frame.",
    "strict": "For sites that load everything from themselves and have neither scripts nor styles within their pages.",
}


def security_page() -> str:
    """Return the text of docs/security.md."""
    parts = [ABOUT_SECURITY]
    for preset, introduction in PRESET_INTRODUCTIONS.items():
        lines = [f'\n## `security = "{preset}"`\n', f"{introduction}\n"]
        lines += [_row(["field", "value", "why"]), _row(["---"] * 3)]
        lines += [_row((f"`{field.name}`", f"`{field.value}`", field.reason)) for field in PRESETS[preset]]
        parts.append("\n".join(lines) + "\n")
    return "".join(parts)


# -- systemd/pyserver.toml -------------------------------------------------------------------------

HEAD: Final = """\
# The configuration of pyserver. What is commented out is the default. After a change:
#
#     systemctl reload pyserver
#
# Files in conf.d beside this one are read after it, by name: put changes there, and this file stays as packaged.
# The [[site]] of all of them together, one file for each if you like, replace those of this file.
"""

# What a packaged server needs beyond the defaults.
SET: Final = {"site.root": '"/var/www/pyserver"'}

# What else may be written, where it is not bounds.
NOTES: Final = {
    LOG_TARGET: '"-" or "/var/log/pyserver/access.log"',
    NAMES: "",  # the default is the best example
    HOSTS: '["example.org", "*.example.org"]',
    ORIGINS: '"*" or ["https://example.org"]',
    PAGE: '"/index.html"',
    PAGES: '{ 404 = "/404.html" }',
}


# A site and the lists within it, which have to stand below it.
SITE_LISTS: Final = [table for table in LISTS if table.partition(".")[0] == "site"]


def sample() -> str:
    """Return the text of the packaged configuration file."""
    return HEAD + "".join(_section(table) for table in (*SITE_LISTS, "listen", *TABLES))


def _section(table: str) -> str:
    header = header_of(table)
    used = table in TABLES or any(option.name in SET for option in options_of(table).values())
    lines = ["", f"# {TABLES_AND_LISTS[table].__doc__}", header if used else f"#{header}"]
    for option in options_of(table).values():
        value = SET.get(option.name, default_of(option))
        assignment = f"{option.key} = {value}" if option.name in SET else f"#{option.key} = {value}"
        note = "" if option.required else NOTES.get(option.kind, allowed(option))
        lines += ["", f"# {option.text}", f"{assignment:30}  # {note}" if note else assignment]
    return "\n".join(lines) + "\n"


# -- systemd/pyserver@.service, pyserver@.socket -----------------------------------------------------

ABOUT_INSTANCES: Final = """\
# Written by docs/generate.py from {unit}: change that. One of several servers on a host, each with its
# own configuration, listener and log: `systemctl start pyserver@blog` takes /etc/pyserver/blog/pyserver.toml.

"""

# What an instance has for itself; each of these stands in the units.
OF_AN_INSTANCE: Final = {
    "pyserver.service": {
        "Description=pyserver web server\n": "Description=pyserver web server, %i\n",
        "Requires=pyserver.socket\nAfter=pyserver.socket\n": "Requires=pyserver@%i.socket\nAfter=pyserver@%i.socket\n",
        "--config /etc/pyserver/pyserver.toml\n": (
            '--config /etc/pyserver/%i/pyserver.toml --set "server.instance=\\"%i\\""\n'
        ),
        "ExecReload=/usr/bin/pyserver reload\n": (
            "ExecReload=/usr/bin/pyserver reload --control /run/pyserver-control@%i.sock\n"
        ),
        "Sockets=pyserver.socket pyserver-control.socket\n": "Sockets=pyserver@%i.socket pyserver-control@%i.socket\n",
        " -/run/pyserver-control.sock\n": " -/run/pyserver-control@%i.sock\n",
        "LogsDirectory=pyserver\n": "LogsDirectory=pyserver/%i\n",
        " +/var/log/pyserver ": " +/var/log/pyserver/%i ",
        "Also=pyserver.socket\n": "Also=pyserver@%i.socket\n",
    },
    "pyserver.socket": {
        "Description=pyserver HTTP listener\n": "Description=pyserver HTTP listener, %i\n",
        "# wait in the kernel's queue. Change the port by a drop-in: systemctl edit pyserver.socket, then\n": (
            "# wait in the kernel's queue. It is a UNIX socket, for a proxy in front. For a port: systemctl edit\n"
            "# pyserver@blog.socket, then\n"
        ),
        "pyserver.socket pyserver.service": "pyserver@blog.socket pyserver@blog.service",
        "ListenStream=80\nBindIPv6Only=both\n": "ListenStream=/run/pyserver@%i.sock\nRemoveOnStop=yes\n",
        "# One socket for IPv6 and IPv4. A port below 1024 asks nothing of the server: it never binds.\n": "",
        "# A client is passed on when its request is there: who is silent wakes nobody for a second (TCP only).\n"
        "DeferAcceptSec=1\n": "",
    },
    "pyserver-control.socket": {
        "Description=pyserver control socket\n": "Description=pyserver control socket, %i\n",
        "PartOf=pyserver.service\n": "PartOf=pyserver@%i.service\n",
        "\nService=pyserver.service\n": "\nService=pyserver@%i.service\n",
        "ListenStream=/run/pyserver-control.sock\n": "ListenStream=/run/pyserver-control@%i.sock\n",
    },
}


def instance(unit: str) -> str:
    """Return the text of the unit's template."""
    text = (PROJECT / "systemd" / unit).read_text()
    for old, new in OF_AN_INSTANCE[unit].items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return ABOUT_INSTANCES.format(unit=unit) + text


def template_of(unit: str) -> Path:
    """Return where that text stands."""
    return PROJECT / "systemd" / unit.replace(".", "@.")


if __name__ == "__main__":
    (PROJECT / "docs/options.md").write_text(options_page())
    (PROJECT / "docs/security.md").write_text(security_page())
    (PROJECT / "systemd/pyserver.toml").write_text(sample())
    (PROJECT / "systemd/pyserver.catalog").write_text(catalog())
    for name in OF_AN_INSTANCE:
        template_of(name).write_text(instance(name))
