"""More clients than can be served: they are told so, administrators are served, and nothing is left of it.

benchmarks/run --overload measures how many are served all the same; here nothing is timed.
"""

import signal
import socket
import threading
import time

from benchmarks.openloop import Fared, offer
from tests.service.client import Client, request
from tests.service.conftest import Serve
from tests.service.harness import wait_until

ASKED = request("/small.txt", "Connection: close")


def test_in_an_overload_administrators_are_served_and_nothing_is_left_of_it(serve: Serve) -> None:
    """The workers stand still until the queue is full and all in it have waited too long; more come all the time."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as public, socket.create_server(("127.0.0.1", 0)) as admin:
        server = serve(
            listeners=[("http", public), ("admin", admin)],
            bind=(),
            settings={"server.queue": 16, "server.queue_wait": 0.05, "server.hung_after": 60},
            dev=False,
        )
        fared: list[Fared] = []

        def come() -> None:
            fared.append(offer(public.getsockname(), ASKED, 400, 3.0, patience=20.0))

        crowd = threading.Thread(target=come)
        pids = server.stop_workers()
        crowd.start()
        wait_until(lambda: server.look().filled_slots == 16)
        wait_until(lambda: server.look().saturations > 0)
        time.sleep(0.2)  # longer than anybody may wait
        for pid in pids:
            server.kill_process(pid, signal.SIGCONT)
        with Client(admin.getsockname(), within=20) as administrator:
            asked = 0
            while crowd.is_alive() or asked < 20:
                assert administrator.ask("/healthz").content == b"alive\n"
                assert administrator.ask("/readyz").content == b"ready\n"
                asked += 1
        for _ in range(5):
            with Client(admin.getsockname(), within=20) as administrator:
                assert administrator.ask("/healthz").content == b"alive\n"
        crowd.join()
        (all_of_them,) = fared
        assert len(all_of_them.good) + len(all_of_them.refused) == all_of_them.offered == 1200
        assert all_of_them.refused, "those that came while the workers stood still"
        assert all_of_them.without_retry_after == 0
        counters = server.counters()
        assert counters["shed"] == len(all_of_them.refused)
        assert counters["failures"] == 0
        wait_until(lambda: server.counters()["connections_open"] == 0, within=20)
        seen = server.look()
        assert (seen.filled_slots, seen.empty_slots, seen.in_hand) == (0, 16, 0)
