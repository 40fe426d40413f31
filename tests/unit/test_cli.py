import argparse
import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.files.process import forbid_openat2, in_child
from tests.unit.processes import run_forked

import pyserver
from pyserver.cli import FLAGS, _leave, build_parser, main
from pyserver.config import DEFAULT_FILE, OPTIONS, Override

SERVICE = Path(pyserver.__file__).parent.parent
ENVIRON = {**os.environ, "PYTHONPATH": str(SERVICE), "COLUMNS": "80"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "www").mkdir()
    (tmp_path / "etc").mkdir()
    path = tmp_path / "etc/pyserver.toml"
    path.write_text('[server]\nworkers = 2\nthreads = 1\n[[site]]\nroot = "../www"\n')
    return path


def pyserver_(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the program as a person does."""
    command = [sys.executable, "-W", "error", "-X", "dev", "-m", "pyserver", *map(str, arguments)]
    return subprocess.run(command, env=ENVIRON, capture_output=True, text=True, timeout=30, check=False)


def usage_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the last line that wrong usage gives."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


# -- check ----------------------------------------------------------------------------------------


def test_check_says_what_would_be_served(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--config", str(file)]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{file}: ok (2 workers, 1 thread, root {file.parent}/../www, 0 files)\n"
    assert printed.err == ""
    assert main(["check", "--no-walk", "--config", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: ok (2 workers, 1 thread, root {file.parent}/../www)\n"


@pytest.mark.parametrize(("journal", "start"), [(True, "<3>"), (False, "/")])
def test_a_complaint_has_its_priority_in_the_journal(file: Path, tmp_path: Path, journal: bool, start: str) -> None:
    """systemd.exec(5), SyslogLevelPrefix=: or else it would be there as no more than information."""
    file.write_text("[server]\nworker = 2\n")
    with (tmp_path / "stderr").open("w+") as stderr:
        found = os.fstat(stderr.fileno())
        environ = {**ENVIRON, "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}" if journal else "1:1"}
        command = [sys.executable, "-m", "pyserver", "serve", "--config", str(file)]
        assert subprocess.run(command, env=environ, stderr=stderr, timeout=30, check=False).returncode == 78
        stderr.seek(0)
        assert stderr.read().startswith(start)


def test_check_of_a_bad_file_is_one_line_and_78(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("\n[server]\nworker = 2\n")
    assert main(["check", "--config", str(file)]) == 78
    printed = capsys.readouterr()
    assert printed.err == f"{file}:3: unknown key 'worker' in [server]; did you mean 'workers'?\n"
    assert printed.out == ""


def test_check_warns_and_is_content(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text('[[site]]\nroot = "."\n')
    assert main(["check", "--config", str(file)]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{file}: ok (")
    expected = (
        f'{file}:2: root "{file.parent}" contains the configuration {file}, which clients can read; move one of them\n'
    )
    assert printed.err == expected


def test_check_tells_what_an_alias_or_a_redirect_hides(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    www, other = file.parent.parent / "www", file.parent.parent / "other"
    for folder in (www / "docs", www / "kept", other):
        folder.mkdir()
    for name in ("docs/a.html", "kept/b.html", "about.html", "old.html", "index.html"):
        (www / name).touch()
    file.write_text(
        """
        [[site]]
        root = "../www"
        clean_urls = true
        alias = [{ path = "/about/", root = "../other" }, { path = "/kept/", root = "../www/kept" }]
        redirect = [{ from = "/docs/*", to = "https://docs.example.org/*" }, { from = "/old", to = "/new" }]
        """
    )
    assert main(["check", "--config", str(file)]) == 0
    top, end = f"{file.parent}/../www", "comes first; delete one of them, or rename it"
    assert capsys.readouterr().err.splitlines() == [
        f"{top}/about.html: clients do not get it as /about (clean_urls), the alias /about/ {end}",
        f"{top}/docs: clients do not get it, the redirect from /docs/* {end}",
        f"{top}/old.html: clients do not get it as /old (clean_urls), the redirect from /old {end}",
    ]


def test_check_walks_all_trees_and_what_it_finds_is_no_failure(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    www = file.parent.parent / "www"
    (www / "static").mkdir()
    (www / "page.bak").touch()
    (www / "static/.git").mkdir()
    file.write_text(
        """
        [[site]]
        root = "../www"
        fallback = "/static/app.html"
        errors = { 404 = "/404.html" }
        alias = [{ path = "/static/", root = "../www/static" }]
        [[site]]
        root = "../www/static"
        hosts = ["example.org"]
        dot_files = "allow"
        """
    )
    assert main(["check", "--config", str(file)]) == 0
    printed = capsys.readouterr()
    top = f"{file.parent}/../www"
    private = "/static/.git: clients do not get it; move it out of the root"
    assert printed.err.splitlines() == [
        f"{top}/static/app.html: is named in the configuration: no such file or directory",
        f"{top}{private}",
        f"{top}/404.html: is named in the configuration: no such file or directory",
        f"{top}{private}",
        f"{top}/page.bak: looks like a backup, which clients do not get; delete it",
        f'{top}/static/.git: is served to clients by dot_files = "allow"; move it out of the root',
    ]
    assert printed.out.endswith(", 16 threads, 2 sites, 5 files)\n")
    assert main(["check", "--no-walk", "--config", str(file)]) == 0
    assert capsys.readouterr().err == ""


def test_check_where_nothing_can_be_served(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def body() -> None:
        forbid_openat2(errno.EPERM)
        assert main(["check", "--config", str(file)]) == 78

    in_child(body)
    assert capfd.readouterr().err.startswith(f"{file}: a seccomp filter forbids openat2 (EPERM); ")


@pytest.mark.skipif(Path(DEFAULT_FILE).exists(), reason="a configuration is installed here")
def test_check_without_a_file_names_the_one_it_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 78
    expected = f"{DEFAULT_FILE}: does not exist; create it, or name another with --config FILE\n"
    assert capsys.readouterr().err == expected


# -- explain ----------------------------------------------------------------------------------------


def test_explain_prints_the_request_the_decisions_and_the_head(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = file.parent.parent / "www/page.txt"
    page.write_text("0123456789")
    os.utime(page, (10**9, 10**9))
    assert main(["explain", "GET", "/./page.txt", "-H", "Range: bytes=2-3", "--config", str(file)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    asked, decided, answered = out.split("\n\n")
    assert asked == "GET /./page.txt HTTP/1.1\nHost: localhost\nRange: bytes=2-3"
    assert [line.split(maxsplit=1)[0] for line in decided.splitlines()] == [
        "site",
        "path",
        "links",
        "file",
        "validators",
        "fields",
        "range",
    ]
    assert decided.splitlines()[0] == f"  site        localhost: root {file.parent}/../www, for all other hosts"
    assert decided.splitlines()[-1] == "  range       bytes=2-3: 2-3 of 10 bytes"
    assert answered.startswith("HTTP/1.1 206 Partial Content\nServer: ")
    assert "\nContent-Range: bytes 2-3/10\n" in answered


def test_explain_of_what_is_no_request(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--root", str(file.parent), "-H", "host: a\x1b"]
    assert main(["explain", "GET", "/", *arguments]) == 0
    out, _ = capsys.readouterr()
    assert out.startswith("GET / HTTP/1.1\nhost: a\\x1b\n\n  request  refused: ")
    assert "\n\nHTTP/1.1 400 Bad Request\n" in out


def test_explain_takes_bytes_that_are_not_utf_8(file: Path) -> None:
    done = pyserver_("explain", "GET", b"/%FF\xff".decode("utf-8", "surrogateescape"), "--root", file.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert "HTTP/1.1 400 " in done.stdout


def test_explain_where_nothing_can_be_served(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def body() -> None:
        forbid_openat2(errno.EPERM)
        assert main(["explain", "GET", "/", "--config", str(file)]) == 78

    in_child(body)
    assert capfd.readouterr().err.startswith("a seccomp filter forbids openat2 (EPERM); ")


# -- serve: how it is told what to do ----------------------------------------------------------------


def test_serve_keeps_its_options_in_order_for_config_to_judge() -> None:
    given = build_parser().parse_args(
        ["serve", "--bind", "a", "--root", "r", "--set", "x=1", "--bind=b", "--threads", "-1", "--access-log", "-"]
    )
    assert given.config is None
    assert given.overrides == [
        Override("--bind", "a"),
        Override("--root", "r"),
        Override("--set", "x=1"),
        Override("--bind", "b"),
        Override("--threads", "-1"),
        Override("--access-log", "-"),
    ]


def test_one_call_leaves_nothing_for_the_next() -> None:
    parser = build_parser()
    assert len(parser.parse_args(["serve", "--root", "r"]).overrides) == 1
    assert len(parser.parse_args(["serve"]).overrides) == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--bind", "80"], '--bind 80: listen.address = "80" has no host; write "127.0.0.1:80"'),
        (["--threads", "0"], "--threads 0: server.threads = 0 is too small; write a whole number from 1 to 512"),
        (
            ["--set", "server.worker=2"],
            "--set server.worker=2: unknown key 'worker' in [server]; did you mean 'workers'?",
        ),
        (["--config", "/nonexistent"], "/nonexistent: does not exist; create it, or name another with --config FILE"),
    ],
)
def test_serve_with_a_bad_configuration(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--root", "/", *arguments]) == 78
    assert capsys.readouterr() == ("", f"{line}\n")


def test_serve_on_an_address_that_is_taken_fails_and_leaves_no_process(file: Path) -> None:
    path = file.parent / "http.sock"
    path.mkdir()  # cannot be bound, and is not ours to remove
    done = pyserver_("serve", "--config", file, "--bind", f"unix:{path}")
    assert done.returncode == 1
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr


def test_serve_serves_and_ends_with_0_when_told_to_stop(file: Path) -> None:
    path = file.parent / "http.sock"
    command = [sys.executable, "-m", "pyserver", "serve", "--config", str(file), "--bind", f"unix:{path}"]
    with (
        subprocess.Popen(command, env=ENVIRON, stderr=subprocess.PIPE, text=True) as process,
        contextlib.ExitStack() as at_last,
    ):
        at_last.callback(process.kill)
        assert process.stderr
        assert any(": ready, " in line for line in process.stderr)  # readiness, told by itself
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(str(path))
            client.sendall(b"GET /missing HTTP/1.0\r\n\r\n")
            assert client.recv(1024).startswith(b"HTTP/1.1 404 ")
        process.terminate()
        rest = process.stderr.read()
        assert (process.wait(30), "Traceback" in rest) == (0, False)


# -- wrong usage, help, version ------------------------------------------------------------------------


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert "COMMAND" in usage_error(capsys)
    assert "pyserver: error: unknown command 'stauts'; did you mean 'status'?" in usage_error(capsys, "stauts")
    assert "unknown command 'xyzzy'; known are serve, check, " in usage_error(capsys, "xyzzy", "--help")
    assert "--nothing" in usage_error(capsys, "serve", "--nothing")
    assert "expected one argument" in usage_error(capsys, "serve", "--root")
    assert "--thread" in usage_error(capsys, "serve", "--thread", "3")  # not an abbreviation
    assert "--root" in usage_error(capsys, "check", "--root", "/srv")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"pyserver {pyserver.__version__}\n"


def parsers() -> Iterator[argparse.ArgumentParser]:
    parser = build_parser()
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


@pytest.mark.parametrize("parser", list(parsers()), ids=lambda parser: parser.prog)
def test_every_help_has_examples_exit_codes_and_a_text_for_each_option(parser: argparse.ArgumentParser) -> None:
    text = parser.format_help()
    assert "\nexamples:\n" in text
    assert "\nexit codes:\n" in text
    assert all(len(line) <= 120 for line in text.splitlines())
    assert all(action.help for action in parser._actions if not isinstance(action, argparse._SubParsersAction))


def test_the_help_of_serve_tells_every_key_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    text = capsys.readouterr().out
    for option in OPTIONS.values():
        if not option.in_list:
            assert f"  {option.name}={option.shown(option.default)} " in text
            assert option.text in text
    assert all(flag.name in text for flag in FLAGS)


# -- the program -----------------------------------------------------------------------------------------


def test_the_program_runs_as_a_module(file: Path) -> None:
    done = pyserver_("check", "--config", file)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{file}: ok ")


def test_a_path_that_is_not_utf_8_is_shown_and_no_traceback(file: Path) -> None:
    odd = file.parent / os.fsdecode(b"\xff.toml")
    done = pyserver_("check", "--config", odd)
    expected = f"{file.parent}/\\udcff.toml: does not exist; create it, or name another with --config FILE\n"
    assert (done.returncode, done.stderr) == (78, expected)


def test_a_reader_that_leaves_gets_no_traceback(file: Path) -> None:
    readable, writable = os.pipe()
    os.close(readable)
    command = [sys.executable, "-m", "pyserver", "check", "--config", str(file)]
    done = subprocess.run(command, env=ENVIRON, stdout=writable, stderr=subprocess.PIPE, timeout=30, check=False)
    os.close(writable)
    assert (done.returncode, done.stderr) == (1, b"")


def test_interrupting_gives_no_traceback(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    command = [sys.executable, "-m", "pyserver", "check", "--config", str(fifo)]
    # Opening the one end returns when the program has opened the other: it reads, and waits.
    with subprocess.Popen(command, env=ENVIRON, stderr=subprocess.PIPE) as process, fifo.open("wb"):
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=30)
    assert (process.returncode, complaint) == (130, b"")


def test_the_command_line_loads_nothing_that_answers_clients() -> None:
    program = """
import sys
import pyserver.cli
print([name for name in sys.modules if name.startswith("pyserver.")])
import pyserver.master.main
foreign = ("pyserver.http", "pyserver.files", "pyserver.handlers", "pyserver.worker")
print([name for name in sys.modules if name.startswith(foreign)])
"""
    done = subprocess.run([sys.executable, "-c", program], env=ENVIRON, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    loaded = {name.split(".")[1] for name in first.strip("[]").replace("'", "").split(", ")}
    assert loaded == {"cli", "config", "limits", "signals"}
    assert second == "[]"


def test_what_was_complained_of_is_told_although_nobody_reads_the_rest(tmp_path: Path) -> None:
    told = tmp_path / "told"

    def leave() -> None:
        readable, writable = os.pipe()
        os.close(readable)
        sys.stdout, sys.stderr = os.fdopen(writable, "w"), told.open("w")
        sys.stdout.write("nobody reads this")
        sys.stderr.write("a complaint")
        _leave(3)

    assert run_forked(leave) == 3
    assert told.read_text() == "a complaint"
