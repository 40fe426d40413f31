"""The administrator: what is set, where it may be written, and what is said when it is wrong.

Owns:    one table of options (options), and the way from files and command line to one Config (reading).
Never:   keeps a file open, reads the environment, looks up a host name, imports anything of ours but limits.
Fails:   ConfigError, always one line: file and line (or the option), what is wrong, what to write instead.
Used by: cli (loads), master, worker, handlers and ipc (read), compress (what can be printed), docs/generate.py
         (renders).
"""

from pyserver.config.address import Address
from pyserver.config.errors import ConfigError, nearest, printable
from pyserver.config.options import (
    DEFAULT_LISTEN,
    LISTS,
    OPTIONS,
    TABLES,
    Alias,
    Clients,
    Config,
    FieldRule,
    Limits,
    Log,
    Option,
    Proxies,
    Redirect,
    Server,
    Site,
    Tracing,
)
from pyserver.config.reading import DEFAULT_FILE, Override, load

__all__ = [
    "DEFAULT_FILE",
    "DEFAULT_LISTEN",
    "LISTS",
    "OPTIONS",
    "TABLES",
    "Address",
    "Alias",
    "Clients",
    "Config",
    "ConfigError",
    "FieldRule",
    "Limits",
    "Log",
    "Option",
    "Override",
    "Proxies",
    "Redirect",
    "Server",
    "Site",
    "Tracing",
    "load",
    "nearest",
    "printable",
]
