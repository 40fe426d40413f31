"""From all sources to one Config, from weak to strong: defaults, the file, conf.d, --set, the other options.

Owns:    the order of sources and how they merge: keys of tables replace one by one, the lists as a whole; only the
         lists of the files in conf.d are put together.
Never:   reads the environment.
Fails:   ConfigError; a value that a later source would replace is checked all the same.
Used by: config (for cli).
"""

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from pyserver.config import sites, system
from pyserver.config.address import Address
from pyserver.config.errors import ConfigError, Refused, cut, literal, nearest, printable
from pyserver.config.kinds import is_a
from pyserver.config.options import DEFAULT_LISTEN, LISTS, OPTIONS, TABLES, Config, Option, options_of
from pyserver.config.sources import Item, Keys, Setting, Source, parse, read

# What is read without --config and without --root, if it is there.
DEFAULT_FILE: Final = "/etc/pyserver/pyserver.toml"


class Override(NamedTuple):
    """An option of the command line with its value: ("--set", "server.threads=16"), ("--root", "/srv")."""

    option: str
    value: str


class Settings:
    """What the sources said, the later ones over the earlier."""

    def __init__(self) -> None:
        self.values: dict[str, Setting] = {}  # "server.workers" -> its setting
        self.lists: dict[str, list[Item]] = {}  # "site" -> its tables


def load(path: str | None = None, overrides: Sequence[Override] = (), *, default_file: str = DEFAULT_FILE) -> Config:
    """Read all sources, check them and this system; raises ConfigError."""
    root_given = any(given.option == "--root" for given in overrides)
    if path is None and not root_given and os.path.lexists(default_file):
        path = default_file
    settings = Settings()
    files = [read(file) for file in _files(path)]
    for source in files:
        _take_document(parse(source), source, settings, joined=files[1:])
    for given in sorted(overrides, key=lambda given: given.option != "--set"):
        _take_override(given, settings)
    return _build(settings, files)


def _files(path: str | None) -> list[str]:
    if path is None:
        return []
    beside = Path(path).parent.glob("conf.d/*.toml")
    return [path, *sorted(str(file) for file in beside if not file.name.startswith("."))]


def _build(settings: Settings, files: Sequence[Source]) -> Config:
    log = settings.values.get("log.access")
    given = _sites(settings, files)
    built = sites.build(given)
    roots = [root for site in given for root in sites.roots(site)]
    for root in roots:
        system.check_root(root)
    if log is not None:
        system.check_log(log)
    _check_proxies(settings)
    tables: dict[str, Any] = {table: rows(**_values_of(table, settings)) for table, rows in TABLES.items()}
    return Config(
        **tables,
        listen=_listen(settings),
        sites=built,
        files=tuple(source.name for source in files),
        warnings=(
            *(warning for root in roots for warning in system.exposed(root, files, log)),
            *_trusting(settings.values.get("proxies.trusted")),
        ),
    )


def _values_of(table: str, settings: Settings) -> dict[str, Any]:
    rows = options_of(table).values()
    return {row.attribute: settings.values[row.name].value for row in rows if row.name in settings.values}


def _sites(settings: Settings, files: Sequence[Source]) -> Sequence[Item]:
    given = settings.lists.get("site", [])
    if not given and files:
        example = OPTIONS["site.root"].kind.example
        raise ConfigError(files[0].name, None, "no [[site]]", f"write [[site]], and below it root = {example}")
    if not given:
        raise ConfigError("pyserver", None, "nothing to serve", f"write --root DIR, or a [[site]] in {DEFAULT_FILE}")
    return given


def _check_proxies(settings: Settings) -> None:
    protocol, trusted = settings.values.get("proxies.protocol"), settings.values.get("proxies.trusted")
    if protocol is not None and protocol.value != "off" and not (trusted and trusted.value):
        what = f"proxies.protocol = {literal(protocol.value)} without a peer that is trusted"
        raise protocol.error(what, 'write trusted = ["192.0.2.7"] beside it, with the addresses of your proxies')


def _trusting(trusted: Setting | None) -> Iterator[str]:
    """Tell of networks that everybody is in (T-41): whoever connects can then say who it is."""
    for network in trusted.value if trusted is not None else ():
        if network.endswith("/0"):
            assert trusted is not None
            fact = f"proxies.trusted has {literal(network)}, so every client can choose the address that it has in logs"
            yield printable(f"{trusted.place}: {fact}; write the addresses of your proxies")


def _listen(settings: Settings) -> tuple[Address, ...]:
    settings_of: dict[Address, Setting] = {}
    addresses: list[Address] = []
    for item in settings.lists.get("listen", []):
        setting = item.settings["address"]
        address: Address = setting.value
        first = settings_of.setdefault(address, setting)
        if first is not setting and (address.port or address.path):
            what = f"{literal(address.text)} is listened on twice, first in {first.place}"
            raise setting.error(what, "write it once")
        addresses.append(address)
    return tuple(addresses) or DEFAULT_LISTEN


# -- documents: the content of a file, and what --set makes ------------------------------------


def _take_document(
    document: Mapping[str, Any], source: Source, settings: Settings, *, joined: Sequence[Source] = ()
) -> None:
    """Take what a source says. Its lists replace those that are there, but for what comes from sources to be joined.

    These are the files in conf.d: one of them for each site is what others' configurations have taught everybody, and
    a file that takes away its neighbour's site would do so in silence.
    """
    for name, value in document.items():
        if name in TABLES:
            if not isinstance(value, dict):
                raise source.error((name,), f"{name} {is_a(value)}", f"write [{name}], and its keys below it")
            for key, setting in _take_table(name, value, source, (name,)).items():
                settings.values[f"{name}.{key}"] = setting
        elif name in LISTS and "." not in name:
            beside = [item for item in settings.lists.get(name, []) if item.source in joined]
            settings.lists[name] = [*beside, *_take_list(name, value, source, (name,))]
        else:
            raise source.error((name,), *_unknown_at_top(name, value))


def _take_list(name: str, value: object, source: Source, keys: Keys) -> list[Item]:
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        what = "is empty" if value == [] else is_a(value) if not isinstance(value, list) else "is not a list of tables"
        raise source.error(keys, f"{name} {what}", f"write {_header(name)}, and its keys below it")
    return [_take_item(name, item, source, (*keys, number)) for number, item in enumerate(value)]


def _take_item(name: str, table: Mapping[str, Any], source: Source, keys: Keys) -> Item:
    inner = {key: value for key, value in table.items() if f"{name}.{key}" in LISTS}
    taken = _take_table(name, {key: value for key, value in table.items() if key not in inner}, source, keys)
    for key, option in options_of(name).items():
        if option.required and key not in taken:
            raise source.error(keys, f"{_header(name)} without {key}", f"write {key} = {option.kind.example} below it")
    lists = {key: _take_list(f"{name}.{key}", value, source, (*keys, key)) for key, value in inner.items()}
    return Item(taken, lists, source, keys)


def _take_table(name: str, table: Mapping[str, Any], source: Source, keys: Keys) -> dict[str, Setting]:
    taken, known = {}, options_of(name)
    for key, value in table.items():
        if key not in known:
            raise source.error((*keys, key), f"unknown key '{cut(key)}' in {_header(name)}", _nearest(key, name))
        taken[key] = _take_value(known[key], value, source, (*keys, key))
    return taken


def _take_value(option: Option, value: object, source: Source, keys: Keys = ()) -> Setting:
    try:
        return Setting(option.take(value, source.base), source, keys)
    except Refused as refused:
        what = f"{option.name} = {literal(value)} {refused.what}"
        raise source.error((*keys, *refused.within), what, refused.instead or f"write {option.expected}") from None


# -- what was meant ------------------------------------------------------------------------------


# What nginx and Apache call it, and the key or the list that it is here: no letters in common would lead there.
ELSEWHERE: Final = {
    "server_name": "site.hosts",
    "document_root": "site.root",
    "autoindex": "site.listing",
    "try_files": "site.fallback",
    "error_page": "site.errors",
    "gzip": "site.compress",
    "gzip_static": "site.precompressed",
    "brotli_static": "site.precompressed",
    "add_header": "site.fields",
    "expires": "site.fields",
    "location": "site.alias",
    "rewrite": "site.redirect",
    "return": "site.redirect",
    "listen": "listen",
    "access_log": "log.access",
    "worker_processes": "server.workers",
    "keepalive_timeout": "limits.keep_alive",
    "set_real_ip_from": "proxies.trusted",
}


def _header(name: str) -> str:
    return f"[[{name}]]" if name in LISTS else f"[{name}]"


def _nearest(key: str, table: str) -> str:
    if key in ELSEWHERE:
        return _meant(key, ELSEWHERE[key], table)
    known = [*options_of(table), *(name.rpartition(".")[2] for name in LISTS if name.startswith(f"{table}."))]
    if close := nearest(key, known):
        return f"did you mean '{close}'?"
    elsewhere = [option.name for option in OPTIONS.values() if option.key == key]
    return _meant(key, elsewhere[0], table) if elsewhere else f"known are {', '.join(known)}"


def _meant(written: str, name: str, table: str = "") -> str:
    """Return what to write for what was written in this table: the key or the list of this name, in its place."""
    above, _, key = name.rpartition(".")
    if name in LISTS:
        return f"did you mean {_header(name)}?"
    if above == table or above not in LISTS:
        return f"did you mean '{key if above == table else name}'?"
    return f"write it below {_header(above)}" if written == key else f"did you mean '{key}' below {_header(above)}?"


def _unknown_at_top(name: str, value: object) -> tuple[str, str]:
    if isinstance(value, dict | list):
        known = [*TABLES, *LISTS]
        if name in ELSEWHERE:
            return f"unknown table '{cut(name)}'", _meant(name, ELSEWHERE[name])
        if close := nearest(name, known):
            return f"unknown table '{cut(name)}'", f"did you mean {_header(close)}?"
        return f"unknown table '{cut(name)}'", f"known are {', '.join(map(_header, known))}"
    what = f"unknown key '{cut(name)}' outside of a table"
    names = {option.key: option.name for option in reversed([*OPTIONS.values()])}  # of equal keys the first
    meant = ELSEWHERE.get(name) or names.get(name) or names.get(nearest(name, names))
    return what, _meant(name, meant) if meant else "write keys below a line like [server]"


# -- the command line ------------------------------------------------------------------------------


# Options that stand for one key, and whether their value is a string whatever it looks like.
_SHORT_FOR: Final = {
    "--workers": ("server.workers", False),
    "--threads": ("server.threads", False),
    "--access-log": ("log.access", True),
}


def _take_override(given: Override, settings: Settings) -> None:
    source = Source(f"{given.option} {given.value}")
    if given.option == "--set":
        _take_document(_assigned(given.value, source), source, settings)
    elif given.option == "--root":
        root = _take_value(OPTIONS["site.root"], given.value, source)
        settings.lists["site"] = [Item({"root": root}, {}, source, ())]
    elif given.option == "--bind":
        # The first one replaces what files and --set say, the next ones join it.
        bound = [item for item in settings.lists.get("listen", []) if item.source.name.startswith("--bind ")]
        address = _take_value(OPTIONS["listen.address"], given.value, source)
        settings.lists["listen"] = [*bound, Item({"address": address}, {}, source, ())]
    else:
        name, is_string = _SHORT_FOR[given.option]
        value = given.value if is_string else _value_of(given.value)
        settings.values[name] = _take_value(OPTIONS[name], value, source)


_OPTION_FOR_LIST: Final = {"listen": "--bind ADDRESS", "site": "--root DIR"}


def _assigned(assignment: str, source: Source) -> dict[str, Any]:
    name, equals, text = assignment.partition("=")
    keys = [key.strip() for key in name.split(".")]
    if not equals or not all(keys):
        raise source.error((), "is not KEY=VALUE", "write it like server.threads=16")
    if len(keys) > 1 and keys[0] in LISTS:
        raise source.error((), f"{keys[0]} is a list", f"write {_OPTION_FOR_LIST[keys[0]]}")
    document: Any = _value_of(text)
    for key in reversed(keys):
        document = {key: document}
    return dict(document)


def _value_of(text: str) -> object:
    """Read a value as TOML, or as the string it is: `16`, `"auto"`, and plain `auto`."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if len(parsed) == 1 else text
