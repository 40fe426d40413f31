"""While the master executes itself somebody accepts; whatever becomes of that one, clients wait at the worst.

The new code starts when the test lets it: so long the stand-in is alone.
"""

import contextlib
import itertools
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import posix_ipc
import pytest
from tests.service.client import Client, request
from tests.service.conftest import Serve
from tests.service.faults import hold_queue_mutex
from tests.service.harness import Load, Server, children_of, descriptors, process_state, title, wait_until
from tests.service.invariants import kept
from tests.service.test_descriptors import limited
from tests.service.test_reload import digest, only_serving

# The new code says that it has begun, and goes on when a file is gone.
SLOW_START = """
import os, time
if "PYSERVER_HANDOVER" in os.environ and "PYSERVER_REHEARSAL" not in os.environ:
    os.rename({gate!r}, {begun!r})
    while os.path.exists({begun!r}):
        time.sleep(0.005)
"""

# The rehearsal does the same.
SLOW_REHEARSAL = """
import os, time
if "PYSERVER_REHEARSAL" in os.environ:
    open({begun!r}, "x").close()
    while os.path.exists({begun!r}):
        time.sleep(0.005)
"""

PATIENT = {"server.start_within": 60, "server.hung_after": 60}


class Slow:
    """A server whose next life begins slowly."""

    def __init__(self, serve: Serve, release: Path, folder: Path) -> None:
        self._serve = serve
        self._release = release
        self._gate, self._begun = folder / "gate", folder / "begun"
        with (release / "pyserver/__init__.py").open("a") as code:
            code.write(SLOW_START.format(gate=str(self._gate), begun=str(self._begun)))

    def start(self, settings: dict[str, object] | None = None, **options: object) -> Server:
        return self._serve(code=self._release, settings={**PATIENT, **(settings or {})}, **options)

    @contextlib.contextmanager
    def executing(self, server: Server) -> Iterator[int]:
        """Reload; inside, the master is no more than an interpreter that starts. The process id of the stand-in."""
        self._gate.touch()
        reloads = server.look().reloads
        server.send_signal(signal.SIGHUP)
        wait_until(self._begun.exists, 30, "the master executed")
        try:
            (stand_in,) = wait_until(lambda: stand_ins(server), 30, "a stand-in")  # perhaps it had no turn yet
            yield stand_in
        finally:
            self._begun.unlink()
        wait_until(lambda: server.ended() or server.look().reloads == reloads + 1, 30, "the reload is done")


def stand_ins(server: Server) -> list[int]:
    return [pid for pid in children_of(server.pid) if title(pid) == "pyserver: stand-in"]


@pytest.fixture
def slow(serve: Serve, release: Path, tmp_path: Path) -> Slow:
    return Slow(serve, release, tmp_path)


def asking(server: Server, count: int, stack: contextlib.ExitStack) -> list[Client]:
    """Clients that have come and asked."""
    clients = stack.enter_context(server.clients(count, within=30))
    for client in clients:
        client.send(request("/small.txt"))
    return clients


def answered(clients: list[Client]) -> None:
    assert [client.answer().content for client in clients] == [b"small\n"] * len(clients)


def test_new_clients_are_answered_while_the_new_code_starts(slow: Slow, site: Path) -> None:
    server = slow.start()
    with kept(server, site):
        for crew in (2, 3):  # what it hands back, the next hands over
            with slow.executing(server) as stand_in:
                for _ in range(40):
                    assert server.ask("/small.txt", within=30).content == b"small\n"
                assert server.look().master_pid == server.pid
            assert not process_state(stand_in), "it was reaped"
            only_serving(server, crew)
    assert not server.logged("stand-in")


def stop(server: Server, stand_in: int) -> None:
    """Once it has accepted, so that it is in its loop."""
    assert server.ask("/small.txt", within=30).status == 200
    server.kill_process(stand_in, signal.SIGSTOP)
    wait_until(lambda: process_state(stand_in) == "T")


def test_killed_stand_in_leaves_clients_to_the_new_code(slow: Slow, site: Path) -> None:
    server = slow.start()
    with kept(server, site), contextlib.ExitStack() as stack:
        with slow.executing(server) as stand_in:
            old = server.stop_workers()
            passed_on = asking(server, 5, stack)
            wait_until(lambda: server.look().filled_slots == 5, 20)
            server.kill_process(stand_in)
            wait_until(lambda: process_state(stand_in) == "Z")
            clients = asking(server, 10, stack)
        # All of them came before there were new workers.
        wait_until(lambda: (server.look().filled_slots, server.look().empty_slots) == (15, 1009), 20)
        for pid in old:
            server.kill_process(pid, signal.SIGCONT)
        answered(passed_on + clients)
        stack.close()
        only_serving(server, 2)
    assert server.logged("err .* the stand-in that accepted meanwhile is lost")


def test_stopped_stand_in_is_waited_for_not_long(slow: Slow, site: Path) -> None:
    server = slow.start()
    with kept(server, site), contextlib.ExitStack() as stack:
        with slow.executing(server) as stand_in:
            stop(server, stand_in)
            clients = asking(server, 10, stack)
        answered(clients)
        stack.close()
        only_serving(server, 2)


def test_stand_in_killed_inside_the_accounting_is_mended_after(slow: Slow, site: Path) -> None:
    """It has the mutex, and room for two that it has not passed on."""
    server = slow.start()
    with kept(server, site), contextlib.ExitStack() as stack:
        with slow.executing(server) as stand_in:
            stop(server, stand_in)
            hold_queue_mutex(server, None)
            empty = posix_ipc.Semaphore(f"/pyserver.{server.pid}.empty_slots")
            empty.acquire(0)
            empty.acquire(0)
            empty.close()
            server.kill_process(stand_in)
            clients = asking(server, 10, stack)
        answered(clients)
        stack.close()
        only_serving(server, 2)


def test_what_it_cannot_pass_on_it_hands_back(slow: Slow, site: Path) -> None:
    """A worker has stopped with the queue's mutex: who was accepted waits with the stand-in, then with the master."""
    server = slow.start()
    with kept(server, site), contextlib.ExitStack() as stack:
        with slow.executing(server):
            stopped = server.kill_worker(0, signal.SIGSTOP)
            wait_until(lambda: process_state(stopped) == "T")
            hold_queue_mutex(server, 0)
            clients = asking(server, 10, stack)
            wait_until(lambda: server.look().in_hand > 0, 20)
            server.kill_process(stopped)
        answered(clients)
        stack.close()
        only_serving(server, 2)


def test_full_queue_leaves_clients_in_the_backlog_meanwhile(slow: Slow, site: Path) -> None:
    server = slow.start({"server.queue": 4})
    with kept(server, site, capacity=4), contextlib.ExitStack() as stack:
        with slow.executing(server):
            pids = server.stop_workers()
            clients = asking(server, 20, stack)
            wait_until(lambda: server.look().filled_slots == 4, 20)
        for pid in pids:
            server.kill_process(pid, signal.SIGCONT)
        answered(clients)
        stack.close()
        only_serving(server, 2)
        wait_until(lambda: server.look().saturations >= 1)


def test_worker_that_is_killed_meanwhile_has_a_successor_in_the_end(slow: Slow, site: Path) -> None:
    server = slow.start()
    with kept(server, site), contextlib.ExitStack() as stack:
        with slow.executing(server):
            killed = server.kill_worker(0)
            wait_until(lambda: process_state(killed) == "Z")
            clients = asking(server, 20, stack)
            wait_until(lambda: server.counters()["connections"] + server.look().filled_slots >= 20, 20)
            assert server.look().filled_slots > 0, "some wait for the one who is dead"
        answered(clients)
        stack.close()
        only_serving(server, 2)


def test_master_that_is_killed_takes_it_with_it(slow: Slow, serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        server = slow.start(listeners=[("http", listener)], bind=())
        with slow.executing(server):
            assert server.ask("/small.txt", within=30).status == 200
            server.kill_master()
            wait_until(lambda: not server.survivors(), 20, "stand-in and workers are gone")
            clients = asking(server, 10, stack)
            serve(listeners=[("http", listener)], bind=())
            answered(clients)


def test_master_that_cannot_execute_takes_it_all_back(serve: Serve, release: Path, site: Path, tmp_path: Path) -> None:
    """Its interpreter goes away in the last moment: in the rehearsal."""
    python = tmp_path / "python"
    with (release / "pyserver/__init__.py").open("a") as code:
        code.write(
            "\nimport os\nif 'PYSERVER_REHEARSAL' in os.environ:\n    import sys\n    os.unlink(sys.executable)\n"
        )
    modules = [path for path in sys.path if path.endswith("-packages")]  # those of a venv are not found from there
    python.symlink_to(Path(sys.executable).resolve())
    server = serve(
        code=release,
        within=("/bin/sh", "-c", 'shift; exec "$0" "$@"', str(python)),
        environ={"PYTHONPATH": os.pathsep.join([str(release), *modules])},
    )
    with kept(server, site):
        with Load(server.address, {"/small.txt": digest(site / "small.txt")}, keep_alive=1) as load:
            for _ in range(5):
                with server.logs("reload failed: cannot execute .*: No such file or directory", within=30):
                    server.send_signal(signal.SIGHUP)
                assert server.ask("/small.txt", within=30).status == 200
                python.symlink_to(Path(sys.executable).resolve())
        assert load.failures == []
    assert not server.logged("stand-in")
    assert server.look().reloads == 0


def test_reload_with_few_descriptors_goes_on_without_one_and_says_so(
    serve: Serve, release: Path, site: Path, tmp_path: Path
) -> None:
    """At the limit of open files while the rehearsal lasts; the new code raises it again."""
    begun = tmp_path / "begun"
    with (release / "pyserver/__init__.py").open("a") as code:
        code.write(SLOW_REHEARSAL.format(begun=str(begun)))
    server = serve(code=release, settings=PATIENT)

    def at_the_limit(free: int) -> None:
        """Reload, with so many descriptors left by the time that the stand-in is to be forked."""
        used = descriptors(server.pid)
        limit = next(itertools.islice((one for one in itertools.count() if one not in used), free, None))
        server.send_signal(signal.SIGHUP)
        wait_until(begun.exists, 30, "the rehearsal began")
        with limited(server.pid, limit):
            begun.unlink()
            wait_until(lambda: server.logged("reload failed") or server.look().reloads == crew - 1, 30, "it is over")

    pattern = r"warning .* no stand-in \(Too many open files\): clients wait"
    with kept(server, site):
        for crew, free, told in ((2, 1, 1), (3, 2, 2), (4, 4, 2)):
            at_the_limit(free)
            only_serving(server, crew)
            wait_until(lambda told=told: len(server.logged(pattern)) == told, 20)  # type: ignore[misc]
        crew = 5
        at_the_limit(0)
        assert server.logged("reload failed: cannot execute .*: Too many open files")
        assert server.ask("/small.txt", within=30).status == 200
        wait_until(lambda: len(children_of(server.pid)) == 2, 20, "no child is left but the workers")
