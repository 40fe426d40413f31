import fcntl
import gzip
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.unit.files.process import as_nobody, open_descriptors

import pyserver
from pyserver.cli import main
from pyserver.files.codings import CODINGS

SERVICE = Path(pyserver.__file__).parent.parent
TEXT = b"".join(b"<li>line %d of a page that shrinks</li>\n" % n for n in range(200))
MODIFIED_NS = 1_000_000_000_123_456_789


@pytest.fixture
def site(tmp_path: Path) -> Path:
    www = tmp_path / "www"
    for name, content in {
        "index.html": TEXT,
        "deep/er/style.css": TEXT,
        "deep/small.txt": b"x" * 255,
        "noise.bin": random.Random(1).randbytes(3000),
        "picture.png": TEXT,
        "archive.tar.gz": TEXT,
        "page.html~": TEXT,
        ".git/config.txt": TEXT,
        ".hidden.html": TEXT,
        "unknown.xyzzy": TEXT,
        "a b\udcff.html": TEXT,
    }.items():
        (www / name).parent.mkdir(parents=True, exist_ok=True)
        (www / name).write_bytes(content)
        os.utime(www / name, ns=(MODIFIED_NS, MODIFIED_NS))
    return www


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def compress(site: Path, *arguments: str) -> int:
    return main(["compress", str(site), "--formats", "gz", "--level", "fast", *arguments])


def test_siblings_of_what_shrinks(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(site)
    assert compress(site) == 0
    made = tree(site) - before
    assert made == {"index.html.gz", "deep/er/style.css.gz", "unknown.xyzzy.gz", "a b\udcff.html.gz"}
    for name in made:
        assert gzip.decompress((site / name).read_bytes()) == TEXT
    said = capsys.readouterr()
    assert "4 written" in said.out
    assert "1 not smaller by 5%" in said.out
    assert said.err == ""  # no progress where there is no terminal


def test_a_sibling_is_readable_by_the_same_and_as_old(site: Path) -> None:
    (site / "index.html").chmod(0o640)
    if os.geteuid() == 0:
        os.chown(site / "index.html", 65534, 65534)
    compress(site)
    source, made = (site / "index.html").stat(), (site / "index.html.gz").stat()
    assert stat.S_IMODE(made.st_mode) == 0o640
    assert made.st_mtime_ns == source.st_mtime_ns
    assert (made.st_uid, made.st_gid) == (source.st_uid, source.st_gid)


def test_all_formats_that_there_are(site: Path) -> None:
    before = tree(site)
    assert main(["compress", str(site), "--level", "good", "--jobs", "3"]) == 0
    endings = {Path(name).suffix.encode() for name in tree(site) - before}
    assert endings == {coding.extension for coding in CODINGS if coding.can_make}


def test_again_it_has_nothing_to_do(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compress(site)
    inodes = {name: (site / name).stat().st_ino for name in tree(site)}
    capsys.readouterr()
    assert compress(site) == 0
    assert "4 up to date already" in capsys.readouterr().out
    assert {name: (site / name).stat().st_ino for name in tree(site)} == inodes


def test_one_file_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.html").write_bytes(TEXT)
    assert compress(tmp_path) == 0
    assert capsys.readouterr().out.startswith("1 file; variants: 1 written\n")


def test_a_stale_sibling_is_renewed(site: Path) -> None:
    compress(site)
    (site / "index.html").write_bytes(TEXT[::-1])
    assert compress(site) == 0
    assert gzip.decompress((site / "index.html.gz").read_bytes()) == TEXT[::-1]


def test_links(site: Path) -> None:
    (site.parent / "secret.html").write_bytes(TEXT)
    (site.parent / "private").mkdir()
    (site.parent / "private" / "page.html").write_bytes(TEXT)
    (site / "out.html").symlink_to("../secret.html")
    (site / "out-full.html").symlink_to(site.parent / "secret.html")
    (site / "out-dir").symlink_to("../private")
    (site / "inside.html").symlink_to("index.html")
    (site / "inside-dir").symlink_to("deep")
    (site / "dangling.html").symlink_to("nothing")
    (site / "in-the-way.html").write_bytes(TEXT)
    (site / "in-the-way.html.gz").symlink_to("../secret.html")
    assert compress(site) == 0
    assert not list(site.parent.rglob("secret*.gz"))
    assert not list((site.parent / "private").glob("*.gz"))
    assert not (site / "out.html.gz").exists()
    assert gzip.decompress((site / "inside.html.gz").read_bytes()) == TEXT  # it is served under that name, too
    assert (site / "in-the-way.html.gz").is_symlink()
    assert (site.parent / "secret.html").read_bytes() == TEXT


def test_special_files_hold_nobody_up(site: Path) -> None:
    os.mkfifo(site / "fifo.html")
    os.mkfifo(site / "index.html.gz")
    assert compress(site) == 0
    assert stat.S_ISFIFO((site / "index.html.gz").lstat().st_mode)


def test_what_cannot_be_done_is_said_and_the_rest_is_done(
    site: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (site, site / "deep", site / "deep/er"):
        folder.chmod(0o777)
    (site / "index.html").chmod(0)
    (site / "deep/er").chmod(0o555)
    monkeypatch.chdir(site)  # where nobody may not come by the whole path

    def body() -> None:
        assert compress(Path()) == 1

    as_nobody(body)
    said = capfd.readouterr().err
    assert "index.html: Permission denied" in said
    assert "deep/er/style.css: Permission denied" in said
    assert (site / "unknown.xyzzy.gz").exists()


def test_what_a_killed_run_left_is_swept(site: Path) -> None:
    left, held = site / "deep/.pyserver-compress-0123~", site / "deep/.pyserver-compress-4567~"
    left.write_bytes(b"half")
    with held.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # of a run that is under way
        assert compress(site) == 0
        assert (left.exists(), held.exists()) == (False, True)
    assert compress(site) == 0
    assert not held.exists()


def test_a_tree_of_any_depth(site: Path) -> None:
    deep = site
    for _ in range(60):
        deep = deep / "d"
        deep.mkdir()
    (deep / "page.html").write_bytes(TEXT)
    assert compress(site) == 0
    assert (deep / "page.html.gz").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--formats", "xz"),
        ("--formats", ""),
        ("--formats", "gz,,br"),
        ("--jobs", "0"),
        ("--jobs", "x"),
        ("--level", "7"),
    ],
)
def test_wrong_usage(site: Path, arguments: tuple[str, str]) -> None:
    before = tree(site)
    with pytest.raises(SystemExit) as caught:
        main(["compress", str(site), *arguments])
    assert caught.value.code == 2
    assert tree(site) == before


@pytest.mark.parametrize("root", ["nothing", "index.html"])
def test_no_root(site: Path, root: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert compress(site / root) == 1
    assert "pyserver compress: root" in capsys.readouterr().err


def test_descriptors_do_not_stay(site: Path) -> None:
    compress(site)
    before = open_descriptors()
    for name in tree(site):
        if name.endswith("l.gz"):
            (site / name).unlink()
    compress(site)
    assert open_descriptors() == before


# -- interrupted -----------------------------------------------------------------------------------


@contextmanager
def running(site: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "pyserver", "compress", str(site), "--formats", "gz", "--level", "best"]
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(SERVICE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_leaves_nothing_half_done(site: Path, number: signal.Signals) -> None:
    for index in range(6):  # more than can be done before the signal
        (site / f"large{index}.txt").write_bytes(random.Random(index).randbytes(1 << 14) * 900 + TEXT * 500)
    with running(site) as process:
        give_up = time.monotonic() + 20
        while not any(".pyserver-compress-" in name for name in tree(site)):
            assert process.poll() is None
            assert time.monotonic() < give_up
            time.sleep(0.002)
        process.send_signal(number)
        _, said = process.communicate(timeout=20)
        assert process.returncode == 130
        assert "Traceback" not in said
    assert not [name for name in tree(site) if "pyserver-compress" in name]
    for name in tree(site):
        if name.endswith(".gz") and not name.startswith("archive"):
            assert gzip.decompress((site / name).read_bytes()) == (site / name[:-3]).read_bytes()
    assert len([name for name in tree(site) if name.endswith("txt.gz")]) < 6
    assert compress(site) == 0  # and again from there
    assert (site / "large5.txt.gz").exists()


def test_on_a_terminal_progress_is_shown(site: Path) -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "pyserver", "compress", str(site), "--formats", "gz"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(SERVICE)}, stdout=subprocess.PIPE, stderr=theirs, check=False
    )
    os.close(theirs)
    shown = os.read(ours, 65536)
    os.close(ours)
    assert done.returncode == 0
    assert b"files, " in shown
    assert shown.endswith(b"\r\x1b[K")  # and then it is gone
