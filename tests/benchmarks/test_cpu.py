import os
import subprocess
import sys

import pytest
from benchmarks import cpu


def test_the_parent_is_read_behind_a_name_of_any_characters() -> None:
    assert cpu.parent_of("4711 (a) 1 (b)) S 42 4711 4711 0 -1 4194560 10 0 0 0") == 42


def test_a_family_is_all_that_descend() -> None:
    assert sorted(cpu.family(10, {11: 10, 12: 11, 13: 12, 20: 1, 21: 20, 10: 1})) == [10, 11, 12, 13]


def test_the_share_of_memory_is_read() -> None:
    rollup = "560-7ff ---p 0 00:00 0  [rollup]\nRss:  100 kB\nPss:    42 kB\nPss_Anon:   7 kB\n"
    assert cpu.proportional_kib(rollup) == 42
    with pytest.raises(ValueError, match="Pss"):
        cpu.proportional_kib("Rss: 100 kB\n")


def test_the_cpu_of_children_and_of_ended_threads_counts() -> None:
    # It works until each of its two processes has used 0.1 s by its own clock, in a thread that then ends.
    work = (
        "import os, sys, threading, time\n"
        "os.fork()\n"
        "def burn():\n"
        "    while time.process_time() < 0.1: pass\n"
        "one = threading.Thread(target=burn); one.start(); one.join()\n"
        "os.write(1, b'.')\n"
        "sys.stdin.read()\n"
        "os._exit(0)\n"
    )
    with subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(2) == b".."
        pids = cpu.tree(process.pid)
        assert len(pids) == 2
        assert cpu.seconds_of(pids) >= 0.2
        assert cpu.memory_kib(pids) > 0
        process.communicate()


def test_a_process_that_is_gone_is_told() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    with pytest.raises(cpu.Vanished, match=str(process.pid)):
        cpu.seconds_of([os.getpid(), process.pid])
