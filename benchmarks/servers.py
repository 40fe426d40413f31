"""The servers that are compared: what to install, how each is started, and the configuration it gets.

Owns:    the table SERVERS.
Never:   starts anything, or leaves a server at a default that would make it slower than ours for no reason: the same
         files, one worker, the same logging, connections kept as long as the client likes.
Used by: benchmarks.main, benchmarks.install, benchmarks.instance.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks import uncounted
from benchmarks.uncounted import COPY, PROJECT

CACHE: Final = PROJECT / ".cache" / "benchmarks"
VENV: Final = CACHE / "venv"
FLOOR: Final = CACHE / "floor"

# Whoever has to name an account gets this one, which every Debian has.
ACCOUNT: Final = "www-data"

# Every file of the site has one of these extensions.
MEDIA_TYPES: Final = {
    ".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".png": "image/png",
    ".woff2": "font/woff2", ".bin": "application/octet-stream",
}  # fmt: skip


class Setting(NamedTuple):
    """What a server is told, in its own language."""

    port: int
    site: Path  # folder of the files
    folder: Path  # for its configuration and whatever it writes
    log: Path | None  # access log, or none
    workers: int = 1
    content_bytes: int = 1024  # of the floor's one answer
    threads: int = 16  # of each worker, where there are any
    queue_wait: float | None = None  # seconds, of ours; None: its default


class Plan(NamedTuple):
    """How a server is started."""

    argv: tuple[str, ...]
    files: Mapping[str, str] = {}  # by name, written into its folder before
    environment: Mapping[str, str] = {}


class Server(NamedTuple):
    """A server to compare."""

    name: str
    plan: Callable[[Setting], Plan]
    version: tuple[str, ...]  # the command that tells it
    debs: tuple[str, ...] = ()
    pypi: tuple[str, ...] = ()
    prepare: tuple[str, ...] = ()  # a command to run before
    log: str = ""  # how its access log is set; empty: it has no part in workloads with a log
    note: str = ""


# -- ours, and the physical limit --------------------------------------------------------------------------


def checkout(name: str, project: Path, service: Path | None = None) -> Server:
    """Return the server of a checkout of this project; `service`: the package is there, and not in its own folder."""

    def plan(setting: Setting) -> Plan:
        configuration = f"""\
[server]
workers = {setting.workers}
threads = {setting.threads}
{"" if setting.queue_wait is None else f"queue_wait = {setting.queue_wait}"}

[log]
access = "{setting.log or "off"}"

[[listen]]
address = "127.0.0.1:{setting.port}"

[[site]]
root = "{setting.site}"
compress = false  # the same bytes as the others, which do not compress either
"""
        python = (str(project / ".venv/bin/python"), "-P", "-m", "pyserver")  # as ./dev serve does, but for its --root
        argv = (*python, "serve", "--config", str(setting.folder / "pyserver.toml"))
        return Plan(argv, {"pyserver.toml": configuration}, {"PYTHONPATH": str(service or project / "service")})

    version = ("git", "-C", str(project), "describe", "--always", "--dirty")
    prepare = (str(project / "dev"), "serve", "--help")  # installs what it needs
    return Server(name, plan, version, log="as it always is: written in batches", prepare=prepare)


def floor(setting: Setting) -> Plan:
    """Return how the loop is started that does nothing but what the kernel asks for (floor.c)."""
    return Plan((str(FLOOR), str(setting.port), str(setting.content_bytes)))


# -- from Debian --------------------------------------------------------------------------------------------


def nginx(setting: Setting) -> Plan:
    """Debian's modules and media types; sendfile and tcp_nopush as in Debian's own configuration."""
    log = f"{setting.log} combined" if setting.log else "off"
    folder = setting.folder
    configuration = f"""\
daemon off;
user {ACCOUNT};
worker_processes {setting.workers};
worker_rlimit_nofile 65536;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 32768; }}
http {{
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    access_log {log};
    keepalive_requests 1000000000;
    keepalive_timeout 600;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{setting.port} backlog=4096;
        root {setting.site};
    }}
}}
"""
    return Plan(
        ("/usr/sbin/nginx", "-c", f"{folder}/nginx.conf", "-e", f"{folder}/error.log"), {"nginx.conf": configuration}
    )


def apache(setting: Setting) -> Plan:
    """The event model, one process, files sent with sendfile."""
    types = "\n".join(f"AddType {media_type} {suffix}" for suffix, media_type in MEDIA_TYPES.items())
    logging = ""
    if setting.log:
        logging = f"""\
LogFormat "%h %l %u %t \\"%r\\" %>s %O \\"%{{Referer}}i\\" \\"%{{User-Agent}}i\\"" combined
CustomLog {setting.log} combined
"""
    configuration = f"""\
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule mime_module /usr/lib/apache2/modules/mod_mime.so
{logging}ServerName localhost
ServerRoot {setting.folder}
DefaultRuntimeDir {setting.folder}
PidFile {setting.folder}/apache.pid
ErrorLog {setting.folder}/error.log
User {ACCOUNT}
Group {ACCOUNT}
Listen 127.0.0.1:{setting.port}
ListenBacklog 4096
ServerLimit {setting.workers}
ThreadLimit 1100
StartServers {setting.workers}
ThreadsPerChild 1100
MaxRequestWorkers {1100 * setting.workers}
AsyncRequestWorkerFactor 32
KeepAlive On
KeepAliveTimeout 600
MaxKeepAliveRequests 0
EnableSendfile On
TypesConfig /dev/null
{types}
DocumentRoot {setting.site}
<Directory {setting.site}>
    Require all granted
    AllowOverride None
    Options FollowSymLinks
</Directory>
"""
    return Plan(
        ("/usr/sbin/apache2", "-f", f"{setting.folder}/apache.conf", "-DFOREGROUND"), {"apache.conf": configuration}
    )


def lighttpd(setting: Setting) -> Plan:
    """One process, its default backends (epoll, sendfile)."""
    types = ",\n".join(f'    "{suffix}" => "{media_type}"' for suffix, media_type in MEDIA_TYPES.items())
    modules, logging = "", ""
    if setting.log:
        modules, logging = '"mod_accesslog"', f'accesslog.filename = "{setting.log}"\n'
    configuration = f"""\
server.modules = ({modules})
server.bind = "127.0.0.1"
server.port = {setting.port}
server.listen-backlog = 4096
server.document-root = "{setting.site}"
server.username = "{ACCOUNT}"
server.groupname = "{ACCOUNT}"
server.errorlog = "{setting.folder}/error.log"
server.max-fds = 65536
server.max-connections = 32768
server.max-keep-alive-requests = 1000000000
server.max-keep-alive-idle = 600
{logging}mimetype.assign = (
{types}
)
"""
    return Plan(("/usr/sbin/lighttpd", "-D", "-f", f"{setting.folder}/lighttpd.conf"), {"lighttpd.conf": configuration})


def h2o(setting: Setting) -> Plan:
    """One thread."""
    configuration = f"""\
num-threads: {setting.workers}
max-connections: 32768
user: {ACCOUNT}
error-log: {setting.folder}/error.log
http1-request-timeout: 600
listen:
  host: 127.0.0.1
  port: {setting.port}
hosts:
  default:
    paths:
      /:
        file.dir: {setting.site}
"""
    if setting.log:
        configuration += f"access-log: {setting.log}\n"
    return Plan(("/usr/bin/h2o", "-m", "worker", "-c", f"{setting.folder}/h2o.conf"), {"h2o.conf": configuration})


def caddy(setting: Setting) -> Plan:
    """One processor for Go's scheduler, no administration, no certificates."""
    log = f"    log {{\n        output file {setting.log}\n    }}\n" if setting.log else ""
    configuration = f"""\
{{
    admin off
    auto_https off
}}
http://127.0.0.1:{setting.port} {{
    root * {setting.site}
    file_server
{log}}}
"""
    home = str(setting.folder)
    return Plan(
        ("/usr/bin/caddy", "run", "--adapter", "caddyfile", "--config", f"{setting.folder}/Caddyfile"),
        {"Caddyfile": configuration},
        {"GOMAXPROCS": str(setting.workers), "HOME": home, "XDG_DATA_HOME": home, "XDG_CONFIG_HOME": home},
    )


# -- from PyPI ------------------------------------------------------------------------------------------------


def gunicorn(setting: Setting) -> Plan:
    """WhiteNoise serves the files; threads, because without them gunicorn keeps no connection."""
    application = f"""\
from whitenoise import WhiteNoise


def absent(environ, start_response):
    start_response("404 Not Found", [("Content-Type", "text/plain"), ("Content-Length", "9")])
    return [b"not found"]


application = WhiteNoise(absent, root={str(setting.site)!r})
"""
    log = ("--access-logfile", str(setting.log)) if setting.log else ()
    argv = (
        str(VENV / "bin/gunicorn"), "--bind", f"127.0.0.1:{setting.port}", "--workers", str(setting.workers),
        "--worker-class", "gthread", "--threads", str(setting.threads),
        "--worker-connections", "4096", "--backlog", "4096",
        "--keep-alive", "600", *log, "whitenoise_files:application",
    )  # fmt: skip
    return Plan(argv, {"whitenoise_files.py": application})


def granian(setting: Setting) -> Plan:
    """Its own way for static files, written in Rust; the application answers what it does not find."""
    application = """\
def application(environ, start_response):
    start_response("404 Not Found", [("Content-Type", "text/plain"), ("Content-Length", "9")])
    return [b"not found"]
"""
    argv = (
        str(VENV / "bin/granian"), "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(setting.port),
        "--workers", str(setting.workers), "--backlog", "4096", "--blocking-threads", "16",
        "--static-path-route", "",
        "--static-path-mount", str(setting.site), "absent:application",
    )  # fmt: skip
    return Plan(argv, {"absent.py": application})


def uvicorn(setting: Setting) -> Plan:
    """Starlette's StaticFiles under uvicorn with its fast parts (uvloop, httptools)."""
    application = f"""\
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

application = Starlette(routes=[Mount("/", StaticFiles(directory={str(setting.site)!r}))])
"""
    argv = (
        str(VENV / "bin/uvicorn"), "--host", "127.0.0.1", "--port", str(setting.port), "--loop", "uvloop",
        "--http", "httptools", "--backlog", "4096", "--timeout-keep-alive", "600", "--no-access-log",
        "files:application",
    )  # fmt: skip
    return Plan(argv, {"files.py": application})


OURS: Final = checkout("ours", PROJECT)

# Ours without what it counts (benchmarks.uncounted); by name only, not one of all.
UNCOUNTED: Final = checkout("uncounted", PROJECT, COPY / "service")._replace(
    prepare=(sys.executable, str(Path(uncounted.__file__))), note="a copy of ours that counts nothing"
)

SERVERS: Final = {
    server.name: server
    for server in (
        OURS,
        Server("floor", floor, (str(FLOOR), "--version"), ("gcc", "libc6-dev"), note="constant bytes: no server"),
        Server("nginx", nginx, ("nginx", "-v"), ("nginx-core",), log="its default: a write(2) for each line"),
        Server("apache", apache, ("apache2", "-v"), ("apache2",), log="its default: a write(2) for each line"),
        Server("lighttpd", lighttpd, ("lighttpd", "-v"), ("lighttpd",), log="its default: in batches"),
        Server("h2o", h2o, ("h2o", "-v"), ("h2o",), log="its default: a write(2) for each line"),
        Server("caddy", caddy, ("caddy", "version"), ("caddy",), log="its default for requests: JSON"),
        Server(
            "gunicorn", gunicorn, (str(VENV / "bin/gunicorn"), "--version"),
            pypi=("gunicorn", "whitenoise"), log="its own, a write(2) for each line", note="with WhiteNoise",
        ),
        Server("granian", granian, (str(VENV / "bin/granian"), "--version"), pypi=("granian",)),
        Server(
            "uvicorn", uvicorn, (str(VENV / "bin/uvicorn"), "--version"),
            pypi=("uvicorn[standard]", "starlette"), note="with Starlette",
        ),
    )
}  # fmt: skip

assert sys.version_info >= (3, 11)
