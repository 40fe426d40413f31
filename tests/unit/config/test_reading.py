# ruff: noqa: E501  a row is one line
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyserver.config import (
    Address,
    Alias,
    Config,
    ConfigError,
    FieldRule,
    Limits,
    Log,
    Override,
    Proxies,
    Redirect,
    Server,
    Site,
    Tracing,
    load,
)
from pyserver.config.options import LISTS, OPTIONS
from pyserver.config.reading import ELSEWHERE
from pyserver.limits import MIB

SITE = '[[site]]\nroot = "."\n'  # lines 1 and 2 of most rows
NOWHERE = "/nonexistent/pyserver.toml"


def file_with(content: str | bytes, folder: Path, name: str = "pyserver.toml") -> str:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def loaded(content: str, folder: Path, *overrides: tuple[str, str]) -> Config:
    return load(file_with(content, folder), [Override(*given) for given in overrides])


# -- what comes out -------------------------------------------------------------------------------


def test_without_a_file_all_are_defaults(tmp_path: Path) -> None:
    config = load(None, [Override("--root", str(tmp_path))], default_file=NOWHERE)
    assert config == Config(sites=(Site(str(tmp_path)),))
    assert config.server == Server(
        workers="auto",
        threads=16,
        queue=1024,
        queue_wait=30.0,
        drain=25.0,
        hung_after=5.0,
        respawn_delay_max=5.0,
        start_within=10.0,
        landlock="auto",
        instance="",
    )
    assert config.limits == Limits(
        head_deadline=10.0,
        keep_alive=65.0,
        send_stall=30.0,
        body_deadline=30.0,
        receive_rate=0,
        send_rate=0,
        rate_period=5.0,
        requests=0,
        head_bytes=32 * 1024,
        target_bytes=8 * 1024,
        head_fields=100,
        cache_bytes=32 * MIB,
        cache_entries=4096,
    )
    assert config.log == Log(access="off", journal_requests=100)
    assert [address.text for address in config.listen] == ["127.0.0.1:8080"]
    assert config.sites[0].index == ("index.html",)


def test_every_key_of_a_file_is_taken(tmp_path: Path) -> None:
    config = loaded(
        """
        [server]
        workers = 3
        threads = 4
        queue = 5
        queue_wait = 5.5
        drain = 6
        hung_after = 7.5
        respawn_delay_max = 8
        start_within = 9
        landlock = "off"
        instance = "blog"

        [limits]
        head_deadline = 1
        keep_alive = 2
        send_stall = 3
        body_deadline = 4
        receive_rate = 7
        send_rate = 8
        rate_period = 9
        requests = 10
        head_bytes = "11KiB"
        target_bytes = 1200
        head_fields = 13
        cache_bytes = "5KiB"
        cache_entries = 6

        [log]
        access = "access.log"
        journal_requests = 7
        format = "json"

        [proxies]
        trusted = ["192.0.2.0/24", "unix:http"]
        protocol = "proxy"

        [tracing]
        request_id = true
        server_timing = true

        [[listen]]
        address = "[::1]:0"
        [[listen]]
        address = "unix:/run/x.sock"

        [[site]]
        root = "."
        index = ["a.html", "b.html"]
        """,
        tmp_path,
    )
    assert config.server == Server(
        workers=3,
        threads=4,
        queue=5,
        queue_wait=5.5,
        drain=6.0,
        hung_after=7.5,
        respawn_delay_max=8.0,
        start_within=9.0,
        landlock="off",
        instance="blog",
    )
    assert config.limits == Limits(
        head_deadline=1.0,
        keep_alive=2.0,
        send_stall=3.0,
        body_deadline=4.0,
        receive_rate=7,
        send_rate=8,
        rate_period=9.0,
        requests=10,
        head_bytes=11 * 1024,
        target_bytes=1200,
        head_fields=13,
        cache_bytes=5 * 1024,
        cache_entries=6,
    )
    assert config.log == Log(access=str(tmp_path / "access.log"), format="json", journal_requests=7)
    assert config.proxies == Proxies(trusted=("192.0.2.0/24", "unix:http"), protocol="proxy")
    assert config.tracing == Tracing(request_id=True, server_timing=True)
    assert config.listen == (Address.parse("[::1]:0"), Address.parse("unix:/run/x.sock"))
    assert config.sites == (Site(str(tmp_path), ("a.html", "b.html")),)


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0"])
def test_a_network_of_everybody_is_warned_of(tmp_path: Path, network: str) -> None:
    config = loaded(f'{SITE}[proxies]\ntrusted = ["192.0.2.7", "{network}"]\n', tmp_path / "etc")
    (warning,) = (line for line in config.warnings if "proxies" in line)
    assert warning == (
        f'{tmp_path}/etc/pyserver.toml:4: proxies.trusted has "{network}", so every client can choose the address that '
        "it has in logs; write the addresses of your proxies"
    )


def test_durations_are_floats_even_if_written_whole(tmp_path: Path) -> None:
    assert isinstance(loaded(f"{SITE}[server]\ndrain = 3", tmp_path).server.drain, float)


def test_a_config_cannot_be_changed(tmp_path: Path) -> None:
    config = loaded(SITE, tmp_path)
    with pytest.raises(AttributeError):
        config.server.threads = 3  # type: ignore[misc]


def test_every_key_of_a_site_is_taken(tmp_path: Path) -> None:
    for name in ("static", "photos"):
        (tmp_path / name).mkdir()
    config = loaded(
        """
        [[site]]
        root = "."
        hosts = ["Example.org", "*.example.org"]
        symlinks = "owner"
        dot_files = "allow"
        clean_urls = true
        fallback = "/index.html"
        listing = true
        precompressed = false
        compress = false
        security = "strict"
        cors = "*"
        immutable = true

        [site.errors]
        404 = "/404.html"

        [[site.alias]]
        path = "/static/"
        root = "static"
        [[site.alias]]
        path = "/static/photos/"
        root = "photos"

        [[site.redirect]]
        from = "/old/*"
        to = "/new/*"
        status = 308

        [[site.fields]]
        match = "*.html"
        set = { "Cache-Control" = "no-cache" }

        [[site]]
        root = "static"
        redirect = [{ from = "/a", to = "/b" }]
        """,
        tmp_path,
    )
    first = Site(
        str(tmp_path),
        hosts=("example.org", "*.example.org"),
        symlinks="owner",
        dot_files="allow",
        clean_urls=True,
        fallback="/index.html",
        listing=True,
        precompressed=False,
        compress=False,
        security="strict",
        cors=("*",),
        immutable=True,
        errors={404: "/404.html"},
        aliases=(
            Alias("/static/", str(tmp_path / "static")),
            Alias("/static/photos/", str(tmp_path / "photos")),
        ),
        redirects=(Redirect("/old/*", "/new/*", 308),),
        fields=(FieldRule("*.html", {"Cache-Control": "no-cache"}),),
    )
    assert config.sites == (first, Site(str(tmp_path / "static"), redirects=(Redirect("/a", "/b", 301),)))


# -- sources, from weak to strong -------------------------------------------------------------------


def test_conf_d_merges_tables_by_name_of_file_and_replaces_the_lists_of_the_file(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    file_with('[server]\nthreads = 2\nqueue = 2\n[[listen]]\naddress = "127.0.0.1:2"', tmp_path, "conf.d/20.toml")
    file_with(
        f'[server]\nthreads = 1\n[[site]]\nroot = "{other}"\n[[listen]]\naddress = "127.0.0.1:1"',
        tmp_path,
        "conf.d/10.toml",
    )
    file_with("nonsense", tmp_path, "conf.d/note.txt")
    file_with("nonsense", tmp_path, "conf.d/.hidden.toml")
    config = loaded(
        f'{SITE}index = ["x"]\n[server]\nthreads = 0x10\nworkers = 7\n[[listen]]\naddress = "127.0.0.1:0"', tmp_path
    )
    assert (config.server.workers, config.server.threads, config.server.queue) == (7, 2, 2)
    assert [address.text for address in config.listen] == ["127.0.0.1:1", "127.0.0.1:2"]
    assert config.sites == (Site(str(other)),)
    assert [Path(file).name for file in config.files] == ["pyserver.toml", "10.toml", "20.toml"]


def test_each_file_in_conf_d_adds_its_sites(tmp_path: Path) -> None:
    roots = [str(tmp_path / name) for name in ("a", "b", "c")]
    for root in roots:
        Path(root).mkdir()
    a, b, c = roots
    file_with(f'[[site]]\nroot = "{b}"\nhosts = ["b.org"]\n[[site]]\nroot = "{c}"', tmp_path, "conf.d/b.toml")
    file_with(f'[[site]]\nroot = "{a}"\nhosts = ["a.org"]', tmp_path, "conf.d/a.toml")
    file_with("[server]\nthreads = 2", tmp_path, "conf.d/z.toml")
    config = loaded(f'{SITE}hosts = ["replaced.org"]', tmp_path)
    assert config.sites == (Site(a, hosts=("a.org",)), Site(b, hosts=("b.org",)), Site(c))
    # What is stronger than all files still replaces them all.
    assert loaded(SITE, tmp_path, ("--root", c)).sites == (Site(c),)
    assert len(loaded(SITE, tmp_path, ("--set", f'site=[{{root="{b}"}}]')).sites) == 1


def test_one_host_in_two_files_of_conf_d_is_told_with_both(tmp_path: Path) -> None:
    first = file_with(f'\n[[site]]\nroot = "{tmp_path}"\nhosts = ["a.org"]', tmp_path, "conf.d/a.toml")
    second = file_with(f'[[site]]\nroot = "{tmp_path}"\nhosts = ["a.org"]', tmp_path, "conf.d/b.toml")
    with pytest.raises(ConfigError) as caught:
        loaded(SITE, tmp_path)
    assert str(caught.value) == f'{second}:3: host "a.org" is in two sites, the first at {first}:4; write it once'


def test_two_files_of_conf_d_for_all_other_hosts_are_told_with_both(tmp_path: Path) -> None:
    first = file_with(f'\n[[site]]\nroot = "{tmp_path}"', tmp_path, "conf.d/a.toml")
    second = file_with(f'[[site]]\nroot = "{tmp_path}"', tmp_path, "conf.d/b.toml")
    with pytest.raises(ConfigError) as caught:
        loaded(SITE, tmp_path)
    what = f"a second [[site]] without hosts after {first}:2, while one answers for all others"
    assert str(caught.value) == f'{second}:1: {what}; write hosts = ["example.org"] below it'


def test_an_error_in_conf_d_names_that_file(tmp_path: Path) -> None:
    path = file_with("\n[server]\nthread = 2", tmp_path, "conf.d/10.toml")
    with pytest.raises(ConfigError) as caught:
        loaded(SITE, tmp_path)
    assert str(caught.value) == f"{path}:3: unknown key 'thread' in [server]; did you mean 'threads'?"


def test_set_is_stronger_than_files_and_weaker_than_the_other_options(tmp_path: Path) -> None:
    config = loaded(
        f"{SITE}[server]\nthreads = 1\nworkers = 1\nqueue = 1",
        tmp_path,
        ("--threads", "3"),
        ("--set", "server.threads=2"),
        ("--set", "server.workers=2"),
        ("--set", "server.workers=4"),
    )
    assert (config.server.threads, config.server.workers, config.server.queue) == (3, 4, 1)


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("server.workers=auto", "auto"),
        ('server.workers="auto"', "auto"),
        (" server . workers = 3 ", 3),
        ("limits.cache_bytes=1MiB", MIB),
        ("limits.cache_bytes=1048576", MIB),
        ("limits.keep_alive=0.5", 0.5),
        ("log.access=off", "off"),
        ("log.access=/dev/null", "/dev/null"),
        ("log.access=/tmp/a=b", "/tmp/a=b"),
        ("server={threads=2, queue=3}", Server(threads=2, queue=3)),
    ],
)
def test_set_takes_toml_or_a_bare_string(tmp_path: Path, assignment: str, expected: object) -> None:
    found: object = loaded(SITE, tmp_path, ("--set", assignment))
    for name in assignment.partition("=")[0].split("."):
        found = getattr(found, name.strip())
    assert found == expected


def test_set_takes_whole_lists(tmp_path: Path) -> None:
    config = loaded(SITE, tmp_path, ("--set", 'listen=[{address="127.0.0.1:1"}, {address="127.0.0.1:2"}]'))
    assert [address.port for address in config.listen] == [1, 2]


def test_bind_replaces_all_listen_and_several_add_up(tmp_path: Path) -> None:
    text = f'{SITE}[[listen]]\naddress = "127.0.0.1:1"'
    config = loaded(text, tmp_path, ("--bind", "127.0.0.1:2"), ("--bind", "[::1]:3"))
    assert [address.text for address in config.listen] == ["127.0.0.1:2", "[::1]:3"]


def test_port_0_may_be_given_several_times(tmp_path: Path) -> None:
    assert len(loaded(SITE, tmp_path, ("--bind", "127.0.0.1:0"), ("--bind", "127.0.0.1:0")).listen) == 2


def test_root_replaces_the_site(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    config = loaded(f'{SITE}index = ["x"]', tmp_path, ("--root", str(tmp_path / "other")))
    assert config.sites == (Site(str(tmp_path / "other")),)


def test_an_access_log_named_like_a_number_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert loaded(SITE, tmp_path, ("--access-log", "1")).log.access == str(tmp_path / "1")


def test_relative_paths_start_from_their_file_or_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("etc/www", "here/www"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    file_with('[[site]]\nroot = "www/../www/."', tmp_path, "etc/pyserver.toml")
    assert load("../etc/pyserver.toml").sites[0].root == f"{tmp_path}/here/../etc/www/../www"
    assert load("../etc/pyserver.toml", [Override("--root", "./www")]).sites[0].root == str(tmp_path / "here/www")


def test_the_default_file_is_read_unless_a_root_is_given(tmp_path: Path) -> None:
    path = file_with(f"{SITE}[server]\nthreads = 2", tmp_path)
    assert load(default_file=path).server.threads == 2
    assert load(default_file=path).files == (path,)
    config = load(overrides=[Override("--root", str(tmp_path))], default_file=path)
    assert (config.server.threads, config.files) == (16, ())


def test_a_default_file_that_leads_nowhere_is_not_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "pyserver.toml"
    path.symlink_to("gone")
    with pytest.raises(ConfigError, match="does not exist"):
        load(default_file=str(path))


# -- what is refused, and the exact line --------------------------------------------------------------

FILE_ROWS = {
    # not TOML; the position is tomllib's
    "no quotes": (f"{SITE}[log]\naccess = /var/log/x", ':4: not valid TOML: invalid value; write strings in quotes: key = "value"'),
    "no equals": (f"{SITE}[server]\nthreads 16", ":4: not valid TOML: expected '=' after a key in a key/value pair; write key = value"),
    "two on a line": (f"{SITE}[server]\nthreads = 16 queue = 3", ":4: not valid TOML: expected newline or end of document after a statement; write one key = value on a line, strings in quotes"),
    "key twice": (f"{SITE}[server]\nthreads = 1\nthreads = 2", ":5: not valid TOML: cannot overwrite a value; write each key once"),
    "table twice": (f"{SITE}[server]\n[log]\n[server]", ":5: not valid TOML: cannot declare ('server',) twice; write each [table] once"),
    "site as table and list": (f'{SITE}[site]\nroot = "."', ":3: not valid TOML: cannot declare ('site',) twice; write each [table] once"),
    "open string": (f'{SITE}[log]\naccess = "off', ":4: not valid TOML: unterminated string; close the quotes"),
    "open string, then more": (f'{SITE}[log]\naccess = "off\n[server]', ":4: not valid TOML: illegal character '\\n'; close the quotes"),
    "open array": (f'{SITE}index = ["a"', ":3: not valid TOML: unclosed array; close the brackets"),
    "open header": (f"{SITE}[server\nthreads = 1", ":3: not valid TOML: expected ']' at the end of a table declaration; close the brackets"),
    "nonsense": (f"{SITE}!", ":3: not valid TOML: invalid statement; write key = value lines below [table] lines"),
    "endless number": (f"{SITE}[server]\nthreads = {'9' * 5000}", ": not valid TOML: a value is too large; write a smaller one"),
    "endless nesting": (f"{SITE}index = {'[' * 5000}", ": not valid TOML: a value is too large; write a smaller one"),
    # not even text
    "latin-1": (b"# one\n# caf\xe9\n", ":2: byte 0xe9 is not UTF-8; save the file as UTF-8"),
    "byte order mark": (b"\xef\xbb\xbf" + SITE.encode(), ":1: begins with a byte order mark; save it as UTF-8 without"),
    "UTF-16": ("[server]".encode("utf-16"), ":1: byte 0xff is not UTF-8; save the file as UTF-8"),
    "huge": (b"#" * 300_000, ": is larger than 256 KiB; name a TOML file with --config FILE"),
    # unknown
    "misspelt key": (f"{SITE}[server]\nworker = 2", ":4: unknown key 'worker' in [server]; did you mean 'workers'?"),
    "misspelt key of a list": ('[[site]]\nroots = "."', ":2: unknown key 'roots' in [[site]]; did you mean 'root'?"),
    "key of another table": (f"{SITE}[server]\nkeep_alive = 2", ":4: unknown key 'keep_alive' in [server]; did you mean 'limits.keep_alive'?"),
    "key of nothing": (f"{SITE}[log]\nxyzzy = 2", ":4: unknown key 'xyzzy' in [log]; known are access, format, journal_requests, slow"),
    "key of a list in another table": (f"{SITE}[server]\nlisting = true", ":4: unknown key 'listing' in [server]; write it below [[site]]"),
    "key of a site and of its aliases": (f'root = "."\n{SITE}', ":1: unknown key 'root' outside of a table; write it below [[site]]"),
    "key of a site, misspelt": (f'roots = "."\n{SITE}', ":1: unknown key 'roots' outside of a table; did you mean 'root' below [[site]]?"),
    "autoindex of nginx": (f"{SITE}autoindex = true", ":3: unknown key 'autoindex' in [[site]]; did you mean 'listing'?"),
    "autoindex in the wrong place": (f"{SITE}[server]\nautoindex = true", ":4: unknown key 'autoindex' in [server]; did you mean 'listing' below [[site]]?"),
    "server_name outside of a table": (f'server_name = "a.org"\n{SITE}', ":1: unknown key 'server_name' outside of a table; did you mean 'hosts' below [[site]]?"),
    "add_header of nginx": (f'{SITE}add_header = "X-Page yes"', ":3: unknown key 'add_header' in [[site]]; did you mean [[site.fields]]?"),
    "listen of nginx": (f"{SITE}listen = 80", ":3: unknown key 'listen' in [[site]]; did you mean [[listen]]?"),
    "location of nginx": (f'{SITE}[[location]]\npath = "/a/"', ":3: unknown table 'location'; did you mean [[site.alias]]?"),
    "keepalive_timeout of nginx": (f"keepalive_timeout = 2\n{SITE}", ":1: unknown key 'keepalive_timeout' outside of a table; did you mean 'limits.keep_alive'?"),
    "key outside of a table": (f"threads = 2\n{SITE}", ":1: unknown key 'threads' outside of a table; did you mean 'server.threads'?"),
    "misspelt outside of a table": (f"thread = 2\n{SITE}", ":1: unknown key 'thread' outside of a table; did you mean 'server.threads'?"),
    "nothing outside of a table": (f"xyzzy = 2\n{SITE}", ":1: unknown key 'xyzzy' outside of a table; write keys below a line like [server]"),
    "misspelt table": (f"{SITE}\n[servers]\nthreads = 2", ":4: unknown table 'servers'; did you mean [server]?"),
    "misspelt list": (f"{SITE}\n[[listens]]", ":4: unknown table 'listens'; did you mean [[listen]]?"),
    "table of nothing": (f"{SITE}\n[xyzzy]", ":4: unknown table 'xyzzy'; known are [server], [limits], [clients], [proxies], [log], [tracing], [[listen]], [[site]], [[site.alias]], [[site.redirect]], [[site.fields]]"),
    "table in a table": (f"{SITE}\n[server.log]\naccess = 1", ":4: unknown key 'log' in [server]; known are workers, threads, queue, queue_wait, drain, hung_after, respawn_delay_max, start_within, landlock, instance"),
    "key with a line end": (f'{SITE}[log]\n"a\\nb" = 2', ":4: unknown key 'a\\nb' in [log]; known are access, format, journal_requests, slow"),
    "dotted": (f"server.threds = 2\n{SITE}", ":1: unknown key 'threds' in [server]; did you mean 'threads'?"),
    "inline": (f"log = {{ acces = 2 }}\n{SITE}", ":1: unknown key 'acces' in [log]; did you mean 'access'?"),
    # tables and lists
    "table as value": (f"server = 2\n{SITE}", ":1: server is a whole number; write [server], and its keys below it"),
    "table as list": (f"{SITE}[[server]]\nthreads = 2", ":3: server is a list; write [server], and its keys below it"),
    "list as table": ('[site]\nroot = "."', ":1: site is a table; write [[site]], and its keys below it"),
    "list as value": (f'listen = "127.0.0.1:80"\n{SITE}', ":1: listen is a string; write [[listen]], and its keys below it"),
    "list of values": (f'listen = ["127.0.0.1:80"]\n{SITE}', ":1: listen is not a list of tables; write [[listen]], and its keys below it"),
    "empty list": (f"listen = []\n{SITE}", ":1: listen is empty; write [[listen]], and its keys below it"),
    "no address": (f"{SITE}\n[[listen]]", ':4: [[listen]] without address; write address = "127.0.0.1:8080" below it'),
    "no root": ('[[site]]\nindex = ["a"]', ':1: [[site]] without root; write root = "/var/www/pyserver" below it'),
    "no site": ("[server]\nthreads = 2", ': no [[site]]; write [[site]], and below it root = "/var/www/pyserver"'),
    "empty file": ("", ': no [[site]]; write [[site]], and below it root = "/var/www/pyserver"'),
    "two sites for all others": (f"{SITE}\n{SITE}", ':4: a second [[site]] without hosts after $FILE:1, while one answers for all others; write hosts = ["example.org"] below it'),
    "one host, two sites": (f'{SITE}hosts = ["a.org"]\n{SITE}hosts = ["b.org", "A.org."]', ':6: host "a.org" is in two sites, the first at $FILE:3; write it once'),
    "one host twice": (f'{SITE}hosts = ["*.a.org", "*.a.org"]', ':3: host "*.a.org" is twice; write it once'),
    # lists within a site
    "alias beside the sites": (f'{SITE}[[alias]]\npath = "/a/"', ":3: unknown table 'alias'; did you mean [[site.alias]]?"),
    "alias in quotes": (f'{SITE}[["site.alias"]]\npath = "/a/"', ":3: unknown table 'site.alias'; did you mean [[site.alias]]?"),
    "alias as a table": (f'{SITE}[site.alias]\npath = "/a/"', ":3: site.alias is a table; write [[site.alias]], and its keys below it"),
    "aliases": (f"{SITE}aliases = []", ":3: unknown key 'aliases' in [[site]]; did you mean 'alias'?"),
    "alias empty": (f"{SITE}alias = []", ":3: site.alias is empty; write [[site.alias]], and its keys below it"),
    "alias without path": (f'{SITE}[[site.alias]]\nroot = "."', ':3: [[site.alias]] without path; write path = "/static/" below it'),
    "alias without root": (f'{SITE}[[site.alias]]\npath = "/a/"', ':3: [[site.alias]] without root; write root = "/srv/static" below it'),
    "alias that is not there": (f'{SITE}[[site.alias]]\npath = "/a/"\nroot = "/nonexistent"', ':5: root "/nonexistent" does not exist; create the folder, or write another'),
    "alias of a path": (f'{SITE}[[site.alias]]\npath = "/a"\nroot = "."', ':4: site.alias.path = "/a" does not end with "/"; write "/a/"'),
    "second alias": (f'{SITE}[[site.alias]]\npath = "/a/"\nroot = "."\n[[site.alias]]\nroot = "."\npath = "/a/"', ':8: path "/a/" is written twice; write it once'),
    "alias of the second site": (f'{SITE}{SITE}hosts = ["a"]\n[[site.alias]]\npath = "a/"\nroot = "."', ':7: site.alias.path = "a/" does not begin with "/"; write "/a/"'),
    "redirect without to": (f'{SITE}[[site.redirect]]\nfrom = "/a"', ':3: [[site.redirect]] without to; write to = "/new/*" below it'),
    "redirect, misspelt": (f'{SITE}[[site.redirect]]\nform = "/a"', ":4: unknown key 'form' in [[site.redirect]]; did you mean 'from'?"),
    "redirect by its name in Python": (f'{SITE}[[site.redirect]]\nsource = "/a"', ":4: unknown key 'source' in [[site.redirect]]; known are from, to, status"),
    "redirect to itself": (f'{SITE}[[site.redirect]]\nfrom = "/a"\nto = "/a?b"', ':5: redirect from "/a" to "/a?b" leads back to itself; write an address that is not redirected'),
    "redirect into itself": (f'{SITE}[[site.redirect]]\nfrom = "/a/*"\nto = "/a/b/*"', ':5: redirect from "/a/*" to "/a/b/*" leads back to itself; write an address that is not redirected'),
    "redirects in a ring": (f'{SITE}[[site.redirect]]\nfrom = "/a"\nto = "/b%20b"\n[[site.redirect]]\nfrom = "/b b"\nto = "/a"', ':5: redirect from "/a" to "/b%20b" leads back to itself; write an address that is not redirected'),
    "redirect, half a star": (f'{SITE}[[site.redirect]]\nfrom = "/a"\nto = "/b/*"', ':5: to "/b/*" ends with "*", and from "/a" does not; write "*" at the end of both, or of none'),
    "redirect written twice": (f'{SITE}[[site.redirect]]\nfrom = "/a"\nto = "/b"\n[[site.redirect]]\nfrom = "/a"\nto = "/c"', ':7: from "/a" is written twice; write it once'),
    "redirect, status": (f'{SITE}[[site.redirect]]\nfrom = "/a"\nto = "/b"\nstatus = 200', ":6: site.redirect.status = 200 is not the status of a redirect; write 301, 302, 307 or 308"),
    "fields without set": (f'{SITE}[[site.fields]]\nmatch = "*"', ':3: [[site.fields]] without set; write set = { "Cache-Control" = "no-cache" } below it'),
    "fields, one refused": (f'{SITE}[[site.fields]]\nmatch = "*"\n[site.fields.set]\nX-A = "a"\nDate = "now"', ':7: site.fields.set = {...} has "Date", which tells of this very answer; leave it to the server'),
    "errors, one refused": (f'{SITE}[site.errors]\n404 = "/404.html"\n200 = "/ok.html"', ':5: site.errors = {...} has "200", which is not the status of an error; write statuses from 400 to 599 with a path each, like { 404 = "/404.html" }'),
    "errors, one relative": (f'{SITE}[site.errors]\n404 = "404.html"', ':4: site.errors = {...} has for 404 "404.html", which does not begin with "/"; write "/404.html"'),
    "errors as a list": (f'{SITE}[[site.errors]]\n404 = "/404.html"', ':3: site.errors = [{...}] is a list; write statuses from 400 to 599 with a path each, like { 404 = "/404.html" }'),
    "symlinks, misspelt": (f'{SITE}symlinks = "owners"', ':3: site.symlinks = "owners" is not known; write "owner"'),
    "symlinks, other words": (f'{SITE}symlinks = "follow"', ':3: site.symlinks = "follow" is not known; write "beneath", "owner" or "none"'),
    "symlinks as boolean": (f"{SITE}symlinks = false", ':3: site.symlinks = false is a boolean; write "beneath", "owner" or "none"'),
    "dot_files": (f'{SITE}dot_files = "Allow"', ':3: site.dot_files = "Allow" is not known; write "allow"'),
    "security": (f'{SITE}security = "on"', ':3: site.security = "on" is not known; write "off", "basic" or "strict"'),
    "clean_urls as string": (f'{SITE}clean_urls = "yes"', ':3: site.clean_urls = "yes" is a string; write true or false'),
    "fallback": (f'{SITE}fallback = "index.html"', ':3: site.fallback = "index.html" does not begin with "/"; write "/index.html"'),
    "cors": (f'{SITE}cors = "https://a.org"', ':3: site.cors = "https://a.org" is a string; write ["https://a.org"]'),
    "address twice": (f'{SITE}[[listen]]\naddress = "localhost:80"\n[[listen]]\naddress = "127.0.0.1:80"', ':6: "127.0.0.1:80" is listened on twice, first in $FILE:4; write it once'),
    # whole numbers
    "workers too few": (f"{SITE}[server]\nworkers = 0", ':4: server.workers = 0 is too small; write "auto" or a whole number from 1 to 64'),
    "workers too many": (f"{SITE}[server]\nworkers = 65", ':4: server.workers = 65 is too large; write "auto" or a whole number from 1 to 64'),
    "workers as string": (f'{SITE}[server]\nworkers = "2"', ':4: server.workers = "2" is a string; write "auto" or a whole number from 1 to 64'),
    "workers as boolean": (f"{SITE}[server]\nworkers = true", ':4: server.workers = true is a boolean; write "auto" or a whole number from 1 to 64'),
    "threads too few": (f"{SITE}[server]\nthreads = -1", ":4: server.threads = -1 is too small; write a whole number from 1 to 512"),
    "threads too many": (f"{SITE}[server]\nthreads = 513", ":4: server.threads = 513 is too large; write a whole number from 1 to 512"),
    "threads huge": (f"{SITE}[server]\nthreads = 0x{'f' * 20}", ":4: server.threads = 0xffffffffffffffffffff is too large; write a whole number from 1 to 512"),
    "threads as string": (f'{SITE}[server]\nthreads = "16"', ':4: server.threads = "16" is a string; write a whole number from 1 to 512'),
    "threads as fraction": (f"{SITE}[server]\nthreads = 16.0", ":4: server.threads = 16.0 is a number with a fraction; write a whole number from 1 to 512"),
    "threads as boolean": (f"{SITE}[server]\nthreads = true", ":4: server.threads = true is a boolean; write a whole number from 1 to 512"),
    "threads as list": (f"{SITE}[server]\nthreads = [\n1,\n2]", ":4: server.threads = [1, 2] is a list; write a whole number from 1 to 512"),
    "threads as table": (f"{SITE}[server.threads]\nmany = 1", ":3: server.threads = {...} is a table; write a whole number from 1 to 512"),
    "threads as date": (f"{SITE}[server]\nthreads = 2001-01-01", ":4: server.threads = 2001-01-01 is a date or time; write a whole number from 1 to 512"),
    "queue too short": (f"{SITE}[server]\nqueue = 0", ":4: server.queue = 0 is too small; write a whole number from 1 to 65536"),
    "queue too long": (f"{SITE}[server]\nqueue = 65537", ":4: server.queue = 65537 is too large; write a whole number from 1 to 65536"),
    "cache_entries": (f"{SITE}[limits]\ncache_entries = 0", ":4: limits.cache_entries = 0 is too small; write a whole number from 1 to 1000000"),
    # seconds
    "drain negative": (f"{SITE}[server]\ndrain = -0.1", ":4: server.drain = -0.1 is too small; write seconds from 0 to 3600"),
    "drain too long": (f"{SITE}[server]\ndrain = 3601", ":4: server.drain = 3601 is too large; write seconds from 0 to 3600"),
    "drain infinite": (f"{SITE}[server]\ndrain = inf", ":4: server.drain = inf is too large; write seconds from 0 to 3600"),
    "drain not a number": (f"{SITE}[server]\ndrain = nan", ":4: server.drain = nan is not a number; write seconds from 0 to 3600"),
    "drain with a unit": (f'{SITE}[server]\ndrain = "25s"', ':4: server.drain = "25s" is a string; write seconds from 0 to 3600'),
    "drain as boolean": (f"{SITE}[server]\ndrain = true", ":4: server.drain = true is a boolean; write seconds from 0 to 3600"),
    "drain huge": (f"{SITE}[server]\ndrain = 0x{'f' * 400}", f":4: server.drain = 0x{'f' * 158}... is too large; write seconds from 0 to 3600"),
    "hung_after": (f"{SITE}[server]\nhung_after = 0.5", ":4: server.hung_after = 0.5 is too small; write seconds from 1 to 600"),
    "respawn_delay_max": (f"{SITE}[server]\nrespawn_delay_max = 0", ":4: server.respawn_delay_max = 0 is too small; write seconds from 0.01 to 300"),
    "start_within": (f"{SITE}[server]\nstart_within = 0", ":4: server.start_within = 0 is too small; write seconds from 0.1 to 600"),
    "instance": (f'{SITE}[server]\ninstance = "a b"', ':4: server.instance = "a b" is no name of an instance; write a name like "blog", of letters, digits and . _ - @'),
    "instance a number": (f"{SITE}[server]\ninstance = 8", ':4: server.instance = 8 is a whole number; write a name like "blog", of letters, digits and . _ - @'),
    "head_deadline": (f"{SITE}[limits]\nhead_deadline = 0", ":4: limits.head_deadline = 0 is too small; write seconds from 0.01 to 3600"),
    "keep_alive": (f"{SITE}[limits]\nkeep_alive = 86401", ":4: limits.keep_alive = 86401 is too large; write seconds from 0.01 to 86400"),
    "send_stall": (f"{SITE}[limits]\nsend_stall = 0", ":4: limits.send_stall = 0 is too small; write seconds from 0.01 to 3600"),
    "body_deadline": (f"{SITE}[limits]\nbody_deadline = 0", ":4: limits.body_deadline = 0 is too small; write seconds from 0.01 to 3600"),
    # sizes
    "size negative": (f"{SITE}[limits]\ncache_bytes = -1", ':4: limits.cache_bytes = -1 is too small; write bytes or a size like "32MiB", from 0 to "64GiB"'),
    "size too large": (f'{SITE}[limits]\ncache_bytes = "65GiB"', ':4: limits.cache_bytes = "65GiB" is too large; write bytes or a size like "32MiB", from 0 to "64GiB"'),
    "size in MB": (f'{SITE}[limits]\ncache_bytes = "32 MB"', ':4: limits.cache_bytes = "32 MB" has no known unit; write "32MiB"'),
    "size in m": (f'{SITE}[limits]\ncache_bytes = "32m"', ':4: limits.cache_bytes = "32m" has no known unit; write "32MiB"'),
    "size of words": (f'{SITE}[limits]\ncache_bytes = "much"', ':4: limits.cache_bytes = "much" is not a size; write bytes or a size like "32MiB", from 0 to "64GiB"'),
    "size as fraction": (f"{SITE}[limits]\ncache_bytes = 1.5", ':4: limits.cache_bytes = 1.5 is a number with a fraction; write bytes or a size like "32MiB", from 0 to "64GiB"'),
    "size as boolean": (f"{SITE}[limits]\ncache_bytes = false", ':4: limits.cache_bytes = false is a boolean; write bytes or a size like "32MiB", from 0 to "64GiB"'),
    # logs
    "log as boolean": (f"{SITE}[log]\naccess = false", ':4: log.access = false is a boolean; write a path, "-" for standard output, or "off"'),
    "log none": (f'{SITE}[log]\naccess = "None"', ':4: log.access = "None" is not a path; write "off", or "./None" for a file of that name'),
    "log stdout": (f'{SITE}[log]\naccess = "stdout"', ':4: log.access = "stdout" is not a path; write "-", or "./stdout" for a file of that name'),
    "log empty": (f'{SITE}[log]\naccess = ""', ':4: log.access = "" is not a path; write a path, "-" for standard output, or "off"'),
    # sites
    "root as number": ("[[site]]\nroot = 1", ":2: site.root = 1 is a whole number; write the path of a folder"),
    "root empty": ('[[site]]\nroot = ""', ':2: site.root = "" is not a path; write the path of a folder'),
    "root with NUL": ('[[site]]\nroot = "/a\\u0000b"', ':2: site.root = "/a\\u0000b" is not a path; write the path of a folder'),
    "index as string": (f'{SITE}index = "a.html"', ':3: site.index = "a.html" is a string; write ["a.html"]'),
    "index as number": (f"{SITE}index = 1", ':3: site.index = 1 is a whole number; write a list of names without slash, like ["index.html"]'),
    "index of numbers": (f"{SITE}index = [1]", ':3: site.index = [1] has 1, which is not the name of a file; write a list of names without slash, like ["index.html"]'),
    "client that is none": (f'{SITE}[clients]\nexempt = ["10.0.0.0/8", "all"]', ':4: clients.exempt = ["10.0.0.0/8", "all"] has "all", which is not a network; write a list of addresses and networks, like ["192.0.2.7", "2001:db8::/32"]'),
    "network with a host in it": (f'{SITE}[clients]\nexempt = ["10.0.0.7/8"]', ':4: clients.exempt = ["10.0.0.7/8"] has "10.0.0.7/8", which is not a network; write "10.0.0.0/8"'),
    "network that is a string": (f'{SITE}[clients]\nexempt = "10.0.0.0/8"', ':4: clients.exempt = "10.0.0.0/8" is a string; write ["10.0.0.0/8"]'),
    "proxy that is none": (f'{SITE}[proxies]\ntrusted = ["10.0.0.0/8", "all"]', ':4: proxies.trusted = ["10.0.0.0/8", "all"] has "all", which is not a network; write a list of addresses, networks and listeners, like ["192.0.2.0/24", "unix:http"]'),
    "proxy at no listener": (f'{SITE}[proxies]\ntrusted = ["unix"]', ':4: proxies.trusted = ["unix"] has "unix", which is no listener for clients; write "unix:http"'),
    "proxies that are a string": (f'{SITE}[proxies]\ntrusted = "10.0.0.0/8"', ':4: proxies.trusted = "10.0.0.0/8" is a string; write ["10.0.0.0/8"]'),
    "protocol of nobody": (f'{SITE}[proxies]\nprotocol = "proxy"', ':4: proxies.protocol = "proxy" without a peer that is trusted; write trusted = ["192.0.2.7"] beside it, with the addresses of your proxies'),
    "protocol of other servers": (f'{SITE}[proxies]\nprotocol = "X-Forwarded-For"', ':4: proxies.protocol = "X-Forwarded-For" is not known; write "x-forwarded-for"'),
    "network that is a number": (f"{SITE}[clients]\nexempt = [1]", ':4: clients.exempt = [1] has 1, which is not a network; write a list of addresses and networks, like ["192.0.2.7", "2001:db8::/32"]'),
    "index with a slash": (f'{SITE}index = [\n"a.html",\n"b/a.html"]', ':3: site.index = ["a.html", "b/a.html"] has "b/a.html", which is not the name of a file; write a list of names without slash, like ["index.html"]'),
    "index above": (f'{SITE}index = [".."]', ':3: site.index = [".."] has "..", which is not the name of a file; write a list of names without slash, like ["index.html"]'),
    "index empty name": (f'{SITE}index = [""]', ':3: site.index = [""] has "", which is not the name of a file; write a list of names without slash, like ["index.html"]'),
    "index with NUL": (f'{SITE}index = ["\\u0000"]', ':3: site.index = ["\\u0000"] has "\\u0000", which is not the name of a file; write a list of names without slash, like ["index.html"]'),
    # addresses; more in test_address.py
    "address as number": (f"{SITE}[[listen]]\naddress = 80", ':4: listen.address = 80 is a whole number; write an address like "127.0.0.1:8080"'),
    "second address": (f'{SITE}[[listen]]\naddress = "127.0.0.1:80"\n[[listen]]\n\naddress = "127.0.0.1"', ':7: listen.address = "127.0.0.1" has no port; write "127.0.0.1:8080"'),
    "address with line end": (f'{SITE}[[listen]]\naddress = "a\\nb"', ':4: listen.address = "a\\nb" has no port; write "a\\nb:8080"'),
}  # fmt: skip


@pytest.mark.parametrize(("content", "line"), FILE_ROWS.values(), ids=FILE_ROWS)
def test_a_file_is_refused_with_this_line(tmp_path: Path, content: str | bytes, line: str) -> None:
    path = file_with(content, tmp_path)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value) == path + line.replace("$FILE", path)


def test_what_others_call_it_leads_to_what_is_there() -> None:
    assert set(ELSEWHERE.values()) <= {*OPTIONS, *LISTS}
    # Who writes a key of ours is not led elsewhere: "listen" is a list, and no key.
    assert not {option.key for option in OPTIONS.values()} & set(ELSEWHERE)


OPTION_ROWS = {
    "--set without value": (("--set", "server.threads"), "is not KEY=VALUE; write it like server.threads=16"),
    "--set without key": (("--set", "=3"), "is not KEY=VALUE; write it like server.threads=16"),
    "--set with half a key": (("--set", "server.=3"), "is not KEY=VALUE; write it like server.threads=16"),
    "--set of an unknown key": (("--set", "server.worker=2"), "unknown key 'worker' in [server]; did you mean 'workers'?"),
    "--set of an unknown table": (("--set", "servr.workers=2"), "unknown table 'servr'; did you mean [server]?"),
    "--set without table": (("--set", "workers=2"), "unknown key 'workers' outside of a table; did you mean 'server.workers'?"),
    "--set of a table": (("--set", "server=2"), "server is a whole number; write [server], and its keys below it"),
    "--set too deep": (("--set", "server.threads.x=2"), "server.threads = {...} is a table; write a whole number from 1 to 512"),
    "--set of a site": (("--set", "site.root=/x"), "site is a list; write --root DIR"),
    "--set of an address": (("--set", "listen.address=/x"), "listen is a list; write --bind ADDRESS"),
    "--set out of bounds": (("--set", "server.threads=0"), "server.threads = 0 is too small; write a whole number from 1 to 512"),
    "--set of a string": (("--set", "server.threads=many"), 'server.threads = "many" is a string; write a whole number from 1 to 512'),
    "--set of two lines": (("--set", "server.threads=1\nx=2"), 'server.threads = "1\\nx=2" is a string; write a whole number from 1 to 512'),
    "--set of an endless number": (("--set", f"server.threads={'9' * 5000}"), f'server.threads = "{"9" * 159}... is a string; write a whole number from 1 to 512'),
    "--workers": (("--workers", "0"), 'server.workers = 0 is too small; write "auto" or a whole number from 1 to 64'),
    "--workers, a word": (("--workers", "all"), 'server.workers = "all" is a string; write "auto" or a whole number from 1 to 64'),
    "--threads": (("--threads", "1.5"), "server.threads = 1.5 is a number with a fraction; write a whole number from 1 to 512"),
    "--access-log": (("--access-log", "none"), 'log.access = "none" is not a path; write "off", or "./none" for a file of that name'),
    "--root": (("--root", ""), 'site.root = "" is not a path; write the path of a folder'),
    "--root, not there": (("--root", "/nonexistent"), 'root "/nonexistent" does not exist; create the folder, or write another'),
    "--bind, a port": (("--bind", "80"), 'listen.address = "80" has no host; write "127.0.0.1:80"'),
}  # fmt: skip


@pytest.mark.parametrize(("override", "line"), OPTION_ROWS.values(), ids=OPTION_ROWS)
def test_an_option_is_refused_with_this_line(tmp_path: Path, override: tuple[str, str], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(SITE, tmp_path, override)
    shown = " ".join(override).replace("\n", "\\n")
    assert str(caught.value) == f"{shown}: {line}"


def test_an_address_given_twice_by_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(SITE, tmp_path, ("--bind", "127.0.0.1:80"), ("--bind", "localhost:80"))
    expected = '--bind localhost:80: "127.0.0.1:80" is listened on twice, first in --bind 127.0.0.1:80; write it once'
    assert str(caught.value) == expected


def test_nothing_to_serve() -> None:
    with pytest.raises(ConfigError) as caught:
        load(default_file=NOWHERE)
    expected = "pyserver: nothing to serve; write --root DIR, or a [[site]] in /etc/pyserver/pyserver.toml"
    assert str(caught.value) == expected


def test_a_value_that_is_replaced_later_is_checked_all_the_same(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r":4: server\.threads = 0 is too small"):
        loaded(f"{SITE}[server]\nthreads = 0", tmp_path, ("--threads", "2"))


def test_a_relative_path_in_a_folder_that_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    program = f"""
import os, pyserver.config as c
os.rmdir({str(gone)!r})
try:
    c.load(None, [c.Override("--root", "www")])
except c.ConfigError as error:
    print(error)
"""
    environ = os.environ | {"PYTHONPATH": str(Path("service").resolve())}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=gone, env=environ, capture_output=True, text=True, check=True
    )
    expected = '--root www: site.root = "www" starts from a working folder that is gone; write an absolute path\n'
    assert done.stdout == expected


# -- whatever is written: a Config, or one line -----------------------------------------------------

_words = st.sampled_from(
    ["[server]", "[[site]]", "[[site.alias]]", "[site.errors]", "[[listen]]", "[log]", "hosts", "errors", "alias", "threads", "workers", "root", "=", " ", "\n", '"', "1", "{", "}", "[", "]", ".", ",", "#", "é", "\0", "\r\n", "'''", "inf", "2001-01-01", "0x"]
)  # fmt: skip


@given(st.one_of(st.lists(_words).map("".join).map(str.encode), st.binary()))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_gives_a_config_or_one_line(tmp_path: Path, content: bytes) -> None:
    path = file_with(content, tmp_path)
    line = path
    try:
        load(path)
    except ConfigError as error:
        line = str(error)
    assert line.startswith(path)
    assert line.isprintable()


@given(st.text())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("option", ["--set", "--root", "--bind", "--workers", "--threads", "--access-log"])
def test_any_option_gives_a_config_or_one_line(tmp_path: Path, option: str, value: str) -> None:
    line = option
    try:
        loaded(SITE, tmp_path, (option, value))
    except ConfigError as error:
        line = str(error)
    assert line.startswith(option)
    assert line.isprintable()


@pytest.mark.parametrize("depth", [50, 200, 300, 320, 330, 340, 1000])
def test_nested_brackets_are_refused_at_any_depth(tmp_path: Path, depth: int) -> None:
    with pytest.raises(ConfigError):
        loaded(f"{SITE}index = {'[' * depth}{']' * depth}", tmp_path)
    with pytest.raises(ConfigError):
        loaded(SITE, tmp_path, ("--set", f"server.threads={'[' * depth}{']' * depth}"))
