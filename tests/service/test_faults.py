"""What is around the server breaks, for real, and it goes on: what clients see, what is logged, and that nothing leaks.

Each is a row of docs/robustness.md. What changes in the files alone is in test_files, deaths are in test_worker_death
and test_master_death, descriptors that run out in test_descriptors.
"""

import contextlib
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from tests.service import brokenfs
from tests.service.brokenfs import Broken
from tests.service.client import Client, Failure, Reset, Truncated, request
from tests.service.conftest import Serve
from tests.service.harness import CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, SHM, wait_until
from tests.service.invariants import kept

from pyserver.worker.transport import untaken

CAP_SYS_ADMIN, CAP_SYS_RESOURCE = 21, 24  # capabilities(7)

HOUR = 3600

LARGE = bytes(range(256)) * (1 << 16)  # 16 MiB: no buffer takes it


def in_namespace(script: str) -> tuple[str, ...]:
    """Return what runs a command where this was done before it, and mounts are its own."""
    return (
        shutil.which("unshare") or "",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        f'{script} && exec "$@"',
        "sh",
    )


@pytest.fixture
def may_mount() -> None:
    if os.geteuid() != 0 or subprocess.run(("unshare", "--mount", "true"), check=False).returncode != 0:
        pytest.skip("needs root, and leave to make namespaces")


# -- the disk --------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Broken]:
    """A folder with files, on a disk that can be broken."""
    if not brokenfs.available():
        pytest.skip("needs root, and /dev/fuse")
    folder = tmp_path / "disk"
    folder.mkdir()
    (folder / "small.txt").write_text("small\n")
    (folder / "large.bin").write_bytes(LARGE)
    (folder / "access.log").touch()
    with brokenfs.broken(folder) as made:
        yield made


def test_disk_of_the_log_that_gives_errors_costs_lines_and_nothing_else(serve: Serve, site: Path, disk: Broken) -> None:
    server = serve(workers=1, access_log=disk.folder / "access.log")
    with kept(server, site):
        with server.logs("cannot write .*access.log: Input/output error, dropping its lines until it can be written"):
            disk.order("write fails")
            with server.client() as client:
                assert [client.ask().status for _ in range(10)] == [200] * 10
                wait_until(lambda: server.counters()["log_lines_dropped"] == 10)
        with server.logs("can be written again, 10 lines were dropped so far"):
            disk.order("well")
            server.ask("/small.txt?again")
    assert b"small.txt?again" in (disk.folder / "access.log").read_bytes()
    disk.order("close fails")  # what a network's file system says last, when it could not write after all
    assert server.stop() == 0
    assert server.logged("worker 0 .* drained and exited with status 0")
    disk.order("well")


def test_files_that_cannot_be_read_are_errors_and_others_are_served(serve: Serve, site: Path, disk: Broken) -> None:
    """EIO on opening and on reading what is small: 500, and the connection goes on."""
    server = serve(disk.folder)
    with kept(server, disk.folder, target="/small.txt"):
        for fault in ("open fails", "read fails"):
            disk.order(fault)
            with server.client() as client:
                wait_until(lambda client=client: client.ask("/small.txt?new").status == 500, within=15)  # type: ignore[misc]
                assert client.ask("/nothing").status == 404
            disk.order("well")
            wait_until(lambda: server.ask("/small.txt").status == 200, within=15)


def test_root_whose_file_system_has_ended(serve: Serve, disk: Broken) -> None:
    """Each look at it is an error, also those that no request asked for: it is told, and workers live."""
    server = serve(disk.folder)
    with kept(server, disk.folder), server.client() as client:
        assert client.ask("/small.txt").status == 200
        with server.logs("serving on from the folder that was there"):
            disk.end()
        wait_until(lambda: client.ask("/small.txt?new").status >= 400, within=15)
        assert server.counters()["failures"] == 0
        disk.unmount()  # what was below it is another folder
        wait_until(lambda: client.ask("/small.txt").status == 200, within=15)


def test_file_that_cannot_be_read_on_while_it_is_sent(serve: Serve, disk: Broken) -> None:
    """The head has promised more: the end of the connection tells the client, and the log whose fault it is."""
    server = serve(disk.folder, workers=1)
    with kept(server, disk.folder), server.client(receive_buffer=65536) as client:
        client.send(request("/large.bin"))
        wait_until(lambda: server.counters()["responses_2xx"] == 1)
        with server.logs("/large.bin could not be read while it was sent, closing after"):
            disk.order("read fails")
            with pytest.raises((Truncated, Reset)):
                client.answer()
        disk.order("well")
        assert server.ask("/large.bin").content == LARGE


@pytest.mark.parametrize("threads", [1, 2])
def test_disk_that_hangs_holds_up_those_who_want_its_files(
    serve: Serve, site: Path, disk: Broken, tmp_path: Path, threads: int
) -> None:
    """As a network's file system does whose server is gone. Who asks for what is in memory is served meanwhile."""
    config = tmp_path / "pyserver.toml"
    alias = f'[[site.alias]]\npath = "/disk/"\nroot = "{disk.folder}"\n'
    config.write_text(f'[[site]]\nroot = "{site}"\n{alias}[server]\nhung_after = 60\n')
    server = serve(config=config, workers=2, threads=threads)
    with kept(server, tmp_path):
        # Until each worker has it in memory: some file systems never say that they have.
        while not all(each.counters["requests"] > 1 for each in server.look().workers):
            server.ask("/small.txt")
        disk.order("read hangs")
        with contextlib.ExitStack() as stack:
            waiting = [stack.enter_context(server.client(within=30)) for _ in range(12 if threads > 1 else 1)]
            for client in waiting:
                client.send(request("/disk/small.txt"))
            if threads > 1:
                for _ in range(40):
                    assert server.ask("/small.txt").content == b"small\n"
            disk.order("well")
            assert [client.answer().content for client in waiting] == [b"small\n"] * len(waiting)
    assert server.generations() == {0: 1, 1: 1}


# -- the root ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("may_mount")
def test_root_that_is_unmounted_and_mounted_again(serve: Serve, site: Path) -> None:
    """What is below is another folder, empty or not: that is served then, as the administrator has it."""
    script = f"mount -t tmpfs root {site} && echo mounted >{site}/page.txt"
    server = serve(site, within=in_namespace(script))

    def inside(*command: str) -> None:
        enter = ("nsenter", "--target", str(server.pid), "--mount", "--")
        subprocess.run((*enter, *command), check=True, timeout=20)

    with kept(server, site, target="/page.txt"):
        assert server.ask("/page.txt").content == b"mounted\n"
        for pid in (server.pid, *server.workers().values()):
            assert Path(f"/proc/{pid}/ns/mnt").readlink() != Path("/proc/self/ns/mnt").readlink()
        inside("umount", "--lazy", str(site))
        wait_until(lambda: server.ask("/small.txt").content == b"small\n", within=20)
        wait_until(lambda: server.ask("/page.txt").status == 404, within=20)  # each worker looks for itself
        inside("sh", "-c", script)
        wait_until(lambda: server.ask("/page.txt").content == b"mounted\n", within=20)
    assert server.logged("is another folder now, serving that")


def test_root_that_is_replaced(serve: Serve, site: Path) -> None:
    server = serve()
    with kept(server, site.parent):
        assert server.ask("/small.txt").content == b"small\n"
        site.rename(site.parent / "old")
        site.mkdir()
        (site / "small.txt").write_text("other\n")
        wait_until(lambda: server.ask("/small.txt").content == b"other\n", within=20)
    assert server.logged("is another folder now, serving that")


def test_root_that_may_not_be_read_any_more(serve: Serve, site: Path) -> None:
    """Its files are not ours to serve until it may: 403, also of those that were served a moment ago."""
    server = serve(without=(CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH))
    with kept(server, site):
        assert server.ask("/small.txt").status == 200
        site.chmod(0)
        try:
            wait_until(lambda: server.ask("/small.txt").status == 403, within=20)
        finally:
            site.chmod(0o755)
        wait_until(lambda: server.ask("/small.txt").status == 200, within=20)


def test_file_that_becomes_a_fifo_while_it_is_sent(serve: Serve, site: Path, large: bytes) -> None:
    """Who began gets the file; who comes later neither waits for a writer nor gets what is no file."""
    path = site / "large.bin"
    path.write_bytes(large)
    server = serve()
    with kept(server, site):
        with server.client(receive_buffer=65536) as client:
            client.send(request("/large.bin"))
            wait_until(lambda: server.counters()["responses_2xx"] == 1)
            os.mkfifo(site / "fifo")
            (site / "fifo").rename(path)
            assert client.answer().content == large
        wait_until(lambda: server.ask("/large.bin").status in (403, 404), within=20)


# -- memory -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("may_mount")
@pytest.mark.parametrize("size", ["4k", "64k"])
def test_full_shared_memory_is_one_line_at_the_start(launch: Serve, size: str) -> None:
    """Not a SIGBUS later: what is shared is allocated before anything is served."""
    server = launch(within=in_namespace(f"mount -t tmpfs -o size={size} shm /dev/shm"))
    server.expected_status = 1
    assert server.wait() == 1
    server.finish()
    assert len(server.log) == 1, server.log
    assert server.logged("no shared memory of [0-9]+ bytes: No space left on device")


@contextlib.contextmanager
def no_more_memory(pid: int) -> Iterator[None]:
    """Let a running process have no more address space than it has."""
    before = resource.prlimit(pid, resource.RLIMIT_AS)
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    resource.prlimit(pid, resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE"), before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_AS, before)


def test_worker_without_memory_refuses_what_needs_some(serve: Serve, site: Path) -> None:
    """RFC 9110 15.6.4: 503. What is held in memory already, and errors, need none."""
    for number in range(40):
        (site / f"{number}.bin").write_bytes(bytes([number]) * 200_000)
    server = serve(workers=1)
    server.may_complain = True  # for want of memory a line of the log may be one of the interpreter's
    with kept(server, site):
        with no_more_memory(server.workers()[0]):
            statuses = []
            for number in range(40):
                with contextlib.suppress(Failure):
                    statuses.append(server.ask(f"/{number}.bin").status)
        assert 503 in statuses, statuses
        assert server.ask("/1.bin").content == bytes([1]) * 200_000
    assert server.generations() == {0: 1}


# -- processes ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def no_more_tasks(pid: int, most: int = 1) -> Iterator[None]:
    """Put a process into a control group with room for so many, itself included (cgroups(7), of either version)."""
    mounted = [Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")]
    group = next((each for each in mounted if (each / "cgroup.procs").exists()), mounted[-1]) / f"pyserver-test-{pid}"
    try:
        group.mkdir()
        (group / "pids.max").write_text(str(most))
        (group / "cgroup.procs").write_text(str(pid))
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"needs control groups that we may make: {error}")
    try:
        yield
    finally:
        (group / "pids.max").write_text("max")
        (group.parent / "cgroup.procs").write_text(str(pid))
        for each in (group / "cgroup.procs").read_text().split():
            (group.parent / "cgroup.procs").write_text(each)
        wait_until(lambda: _removed(group))


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except OSError:
        return False
    return True


def test_worker_that_cannot_be_forked_is_tried_again(serve: Serve, site: Path) -> None:
    server = serve(settings={"server.respawn_delay_max": 0.5})
    with kept(server, site):
        told = "cannot fork worker 0: Resource temporarily unavailable, trying again"
        with no_more_tasks(server.pid), server.logs(told):
            server.kill_worker(0)
            wait_until(lambda: server.logged("cannot fork"))
            assert server.ask("/small.txt", within=15).status == 200, "the other serves"
        server.replaced(0, 1)


def test_worker_that_has_room_for_few_threads_serves_with_those(serve: Serve, site: Path) -> None:
    server = serve(workers=1, threads=8)
    with kept(server, site), no_more_tasks(server.pid, 4):
        with server.logs(r"worker 0: only 3 of 8 threads could be started \(TasksMax=\)"):
            server.kill_worker(0)
            server.replaced(0, 1)
        for _ in range(20):
            assert server.ask("/middling.bin").status == 200


def test_worker_that_breaks_its_memory_is_told_and_replaced(serve: Serve, site: Path) -> None:
    server = serve()
    server.may_complain = True  # faulthandler writes the stacks
    with kept(server, site), server.logs("worker 0 .* killed by SIGSEGV after"):
        server.kill_worker(0, signal.SIGSEGV)
        server.replaced(0, 1)
    assert server.logged("Fatal Python error: Segmentation fault")


def test_master_that_breaks_its_memory_is_followed_by_the_next(serve: Serve, site: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        server = serve(listeners=[("http", listener)])
        server.may_complain = True
        server.expected_status = -signal.SIGSEGV
        server.send_signal(signal.SIGSEGV)
        assert server.wait() == -signal.SIGSEGV
        with Client(server.address, within=20) as waits:
            waits.send(request("/small.txt", "Connection: close"))
            successor = serve(listeners=[("http", listener)])
            with kept(successor, site):
                assert waits.answer().content == b"small\n"
        wait_until(lambda: not server.survivors())
        assert not server.names(), "removed by the successor"
    assert server.logged("Fatal Python error: Segmentation fault")


def test_descriptors_under_way_beyond_the_limit_of_the_user(serve: Serve, site: Path) -> None:
    """ETOOMANYREFS (unix(7)): what waits in channels counts for the one who sent it; it passes as workers take it."""
    server = serve(nofile=64, workers=2, without=(CAP_SYS_ADMIN, CAP_SYS_RESOURCE), settings={"server.hung_after": 60})
    with kept(server, site):
        pids = server.stop_workers()
        with server.clients(200, within=40) as clients:
            for client in clients:
                client.send(request("/small.txt", "Connection: close"))
            wait_until(lambda: server.logged(r"no descriptor for a client \(Too many references"), within=15)
            for pid in pids:
                server.kill_process(pid, signal.SIGCONT)
            assert [client.answer().content for client in clients] == [b"small\n"] * 200
    assert server.generations() == {0: 1, 1: 1}


# -- the clock ------------------------------------------------------------------------------------------------


FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


class WallClock:
    """CLOCK_REALTIME as a server sees it, by libfaketime; the monotonic one is the machine's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.step(0)

    @property
    def environ(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(self.path),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def step(self, seconds: int) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.rename(self.path)

    @staticmethod
    def tidy(pid: int) -> None:
        """Take away what libfaketime leaves in shared memory when a process ends by exec or _exit."""
        for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
            (SHM / name).unlink(missing_ok=True)


@pytest.fixture
def wall_clock(tmp_path: Path) -> WallClock:
    if FAKETIME is None:
        pytest.skip("libfaketime is not installed")
    return WallClock(tmp_path / "clock")


@pytest.mark.parametrize("seconds", [HOUR, -HOUR], ids=["an hour on", "an hour back"])
def test_clock_that_is_stepped(serve: Serve, site: Path, tmp_path: Path, wall_clock: WallClock, seconds: int) -> None:
    """No deadline passes by it, nobody is cut or killed, and files and releases that change are seen all the same."""
    root = tmp_path / "current"
    root.symlink_to(site)
    server = serve(root, environ=wall_clock.environ, settings={"clients.request_rate": 1000})
    switched = r"root .* is another folder now, serving that"

    def hour_off() -> bool:
        date = parsedate_to_datetime(server.ask("/small.txt").fields["date"]).timestamp()
        return abs(date - time.time() - seconds) < HOUR / 2

    with kept(server, tmp_path):
        with server.clients(8) as clients:
            for client in clients:
                assert client.ask("/small.txt").status == 200
            wall_clock.step(seconds)
            wait_until(hour_off, within=20)
            for client in clients:
                assert client.ask("/small.txt").content == b"small\n"
            (site / "small.txt").write_text("other\n")
            wait_until(lambda: server.ask("/small.txt").content == b"other\n", within=20)
            release = tmp_path / "release"
            release.mkdir()
            (release / "small.txt").write_text("small\n")
            link = tmp_path / "next"
            link.symlink_to(release)
            with server.logs(switched, times=2, within=20):  # each worker looks for itself
                link.rename(root)
                wait_until(lambda: server.ask("/small.txt").content == b"small\n", within=20, why="the release")
            for client in clients:
                assert client.ask("/small.txt").content == b"small\n"
        wall_clock.step(0)
        wait_until(lambda: server.ask("/small.txt").status == 200)
    assert server.generations() == {0: 1, 1: 1}
    assert server.counters()["deadlines"] == 0
    wall_clock.tidy(server.pid)


# -- clients --------------------------------------------------------------------------------------------------


def reset(client: Client) -> None:
    """Close without a word more: the other side gets RST (SO_LINGER of 0, socket(7))."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def test_clients_that_reset_at_each_byte_of_a_request(serve: Serve, site: Path) -> None:
    server = serve()
    head = request("/small.txt", "Content-Length: 3") + b"abc"
    with kept(server, site):
        for count in range(len(head) + 1):
            client = server.client()
            client.send(head[:count])
            reset(client)
    assert server.counters()["failures"] == 0


@pytest.mark.parametrize("target", ["/small.txt", "/middling.bin"])
def test_clients_that_reset_at_each_byte_of_an_answer(serve: Serve, site: Path, target: str) -> None:
    server = serve()
    with server.client() as client:
        client.send(request(target, "Connection: close"))
        length = len(client.rest())
    marks = [*range(0, min(length, 330), 1 if length < 1000 else 16), *range(330, length, 5003)]
    with kept(server, site):
        for count in marks:
            client = server.client(receive_buffer=4096)
            client.send(request(target, "Connection: close"))
            got = 0
            while got < count and (data := client.receive(count - got)):
                got += len(data)
            reset(client)
    assert server.counters()["failures"] == 0


def test_peer_that_half_closes_gets_all_of_its_answers(serve: Serve, site: Path, large: bytes) -> None:
    """It has said all that it wants to say, not that it wants to hear nothing (RFC 9112 9.6)."""
    (site / "large.bin").write_bytes(large)
    server = serve()
    with kept(server, site):
        with server.client(receive_buffer=65536) as client:
            client.send(request("/large.bin"))
            client.socket.shutdown(socket.SHUT_WR)
            assert client.answer().content == large
            assert client.ended()
        with server.client() as client:
            client.send(request("/small.txt") * 20)
            client.socket.shutdown(socket.SHUT_WR)
            assert [client.answer().content for _ in range(20)] == [b"small\n"] * 20
            assert client.ended()
        with server.client() as client:
            client.send(b"GET /small.txt HT")
            client.socket.shutdown(socket.SHUT_WR)
            assert client.ended()


TCP_REPAIR, TCP_REPAIR_ON = 19, 1  # linux/tcp.h: in this mode a socket goes without a packet


def test_peers_that_vanish_are_forgotten_at_their_deadlines(serve: Serve, site: Path) -> None:
    """Half-open: a machine that lost its power says nothing, neither FIN nor RST."""
    server = serve(settings={"limits.keep_alive": 2, "limits.head_deadline": 2})
    with kept(server, site):
        try:
            with server.clients(20) as clients:
                for number, client in enumerate(clients):
                    client.ask("/small.txt")
                    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)  # owe nothing
                    if number % 2:
                        client.send(b"GET /small.txt HTTP/1.1\r\n")
                        wait_until(lambda client=client: untaken(client.socket) == 0)  # type: ignore[misc]  # acknowledged
                    client.socket.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON)
        except PermissionError:
            pytest.skip("needs CAP_NET_ADMIN")
        wait_until(lambda: server.counters()["deadlines"] == 20, within=20)
