"""Fuzz the configuration: any text as a file, and any text as the value of --set. See README.md."""

import tempfile
from pathlib import Path

from tests.fuzz import target

with target.instrumented():
    from pyserver.config import OPTIONS, Config, ConfigError, Override, load

FOLDER = tempfile.TemporaryDirectory()
FILE = Path(FOLDER.name) / "pyserver.toml"
ROOT = Path(FOLDER.name) / "www"
ROOT.mkdir()
NAMES = sorted(OPTIONS)

SEEDS = (
    b"",
    b"[server]\nworkers = 2\nthreads = 'auto'\nqueue = 10\ndrain = 1.5\n",
    b"[server]\nwrokers = 4\n",
    b"[limits]\nhead_deadline = nan\ncache_bytes = '64 MiB'\n",
    b"[limits]\nkeep_alive = inf\nbody_deadline = -1e308\n",
    b"[clients]\nexempt = ['192.0.2.0/24', '::1']\ndry_run = true\n",
    b"[[listen]]\naddress = '[::1]:0'\n[[listen]]\naddress = 'unix:x'\n",
    b"[[site]]\nroot = 'www'\nhosts = ['example.org', '*.b\xc3\xbccher.example']\nerrors = { 404 = '/x' }\n",
    b"[[site]]\nroot = 'www'\n[[site.redirect]]\nfrom = '/a/*'\nto = 'https://x/*'\nstatus = 301\n",
    b"[[site]]\nroot = 'www'\n[[site.fields]]\nmatch = '**'\nset = { A = 'b' }\n",
    b"[[site]]\nroot = 'www'\n[[site.alias]]\npath = '/s/'\nroot = 'www'\n",
    b"[[site]]\nroot = 'www'\n[[site]]\nroot = 'www'\n",
    b"server = 1\nsite = {}\n[log]\naccess = '\\u0000'\n",
    b"a.b.c = 1979-05-27T07:32:00Z\n",
    b"[server]\nqueue = 1" + b"0" * 5000 + b"\n",
    b"x = " + b"[" * 2000,
    b"\xff\xfe",
    b"\x00",
)


def refused_well(error: ConfigError, given: bytes) -> None:
    """What is said of it is for a terminal: lines of printable text, where and what."""
    text = str(error)
    assert text
    assert len(text) < 2000 + 8 * len(given)  # what was given to --set is repeated
    assert all(line.isprintable() for line in text.split("\n")), text


def one_input(data: bytes) -> None:
    FILE.write_bytes(data)
    try:
        assert isinstance(load(str(FILE)), Config)
    except ConfigError as error:
        refused_well(error, data)
    if data:
        name, value = NAMES[data[0] % len(NAMES)], data[1:].decode(errors="replace")
        try:
            load(None, [Override("--root", str(ROOT)), Override("--set", f"{name}={value}")])
        except ConfigError as error:
            refused_well(error, data)


if __name__ == "__main__":
    target.main(one_input, SEEDS)
