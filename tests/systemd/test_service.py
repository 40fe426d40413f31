"""pyserver under a real systemd: what the README promises an administrator, typed as he would type it."""

import re
from pathlib import Path

import pytest
from tests.systemd.machine import CommandError, wait_until
from tests.systemd.service import CONFIG, Service

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(600)]  # the first one may have to build the machine

PAGE = (Path(__file__).parents[2] / "www/index.html").read_text()

UNKNOWN_KEY = CONFIG.replace("workers = 2", "wrokers = 2")


# -- start ---------------------------------------------------------------------------------------------


def test_units_are_without_fault(service: Service) -> None:
    units = ("/etc/systemd/system/pyserver.service", "/etc/systemd/system/pyserver.socket")
    # One stream: what systemd-analyze has to say goes to standard error.
    assert service.machine.output("sh", "-c", 'systemd-analyze verify --man=no "$@" 2>&1', "sh", *units) == ""


def test_start_serves_the_page(service: Service) -> None:
    service.start()
    assert service.machine.output("systemctl", "is-active", "pyserver.service", "pyserver.socket") == "active\nactive\n"
    assert service.get("/") == PAGE


def test_the_first_request_starts_a_cold_service(service: Service) -> None:
    service.machine.output("systemctl", "start", "pyserver.socket")
    assert not service.is_active()
    assert service.get("/") == PAGE  # answered by the first worker that is ready; active once all are
    service.wait_until_active()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_one_listener_answers_both_families(service: Service, host: str) -> None:
    service.start()
    assert service.machine.output("curl", "--silent", "--fail", f"http://{host}/") == PAGE


# -- what is told --------------------------------------------------------------------------------------


def test_status_shows_the_live_line(service: Service) -> None:
    service.start()
    shown = service.machine.output("systemctl", "status", "pyserver")
    assert re.search(r'Status: "serving 2/2 workers, \d+ req/s, \d+ open, queue 0"', shown)


def test_the_journal_tells_the_life_as_records(service: Service) -> None:
    service.start()
    master = service.main_pid()
    service.stop()
    records = [record for record in service.journal() if record.get("SYSLOG_IDENTIFIER") == "pyserver"]
    assert {record["_PID"] for record in records} == {str(master)}
    told = [(record["PRIORITY"], record["ROLE"], record["MESSAGE"]) for record in records]
    expected = [
        ("6", "master", r"listening on http\b.*:80 .*\(adopted from systemd\)"),
        ("6", "master", r"sandbox on: [^;]*"),  # all that there is
        ("6", "master", r"worker \d \(generation 1\) ready after .* s"),
        ("6", "master", r"worker \d \(generation 1\) ready after .* s"),
        ("5", "master", r"ready, 2 workers of 16 threads"),
        ("5", "master", r"SIGTERM: stopping, 0 connections open, at most 25 s"),
        ("6", "master", r"worker \d \(generation 1\) drained and exited with status 0"),
        ("6", "master", r"worker \d \(generation 1\) drained and exited with status 0"),
        ("6", "master", r"stopped"),
    ]
    assert len(told) == len(expected), told
    for (priority, role, message), (*leading, pattern) in zip(told, expected, strict=True):
        assert [priority, role] == leading, message
        assert re.fullmatch(pattern, message)


def test_a_field_asks_the_journal(service: Service) -> None:
    service.start()
    service.machine.output("journalctl", "--sync")
    asked = service.machine.output("journalctl", "--unit=pyserver", "WORKER=1", "--output=cat", "--lines=1")
    assert re.fullmatch(r"worker 1 \(generation \d+\) ready after .* s\n", asked)


def test_processes_say_what_they_are(service: Service) -> None:
    service.start()
    titles = service.processes()
    assert titles.pop(service.main_pid()) == "pyserver: master"
    assert sorted(titles.values()) == ["pyserver: worker 0", "pyserver: worker 1"]


def test_the_access_log_is_the_groups_to_read_and_nobody_elses(service: Service) -> None:
    service.start()
    service.get("/?in=the-log")
    service.stop()
    log = "/var/log/pyserver/access.log"
    assert '"GET /?in=the-log HTTP/1.1" 200' in service.machine.output("cat", log)
    stat = service.machine.output("stat", "--format=%U:%G %a", "/var/log/pyserver", log)
    assert stat.splitlines() == ["pyserver:pyserver 750", "pyserver:pyserver 640"]


def test_status_command_finds_the_service(service: Service) -> None:
    service.start()
    service.get("/")
    assert "2/2 workers ready" in service.machine.output("pyserver", "status")


# -- what it cannot do ---------------------------------------------------------------------------------


def test_no_process_has_a_network_a_capability_or_another_account(service: Service) -> None:
    service.start()
    outside = service.machine.output("readlink", "/proc/1/ns/net")
    for pid in service.processes():
        assert service.machine.output("readlink", f"/proc/{pid}/ns/net") != outside
        status = service.machine.output("cat", f"/proc/{pid}/status")
        assert re.search(r"^CapBnd:\t0+$", status, re.MULTILINE)
        assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
        assert service.machine.output("ps", "-o", "user=", "-p", str(pid)).strip() == "pyserver"
    assert service.get("/") == PAGE


# -- death and return ----------------------------------------------------------------------------------


def test_a_killed_worker_is_replaced(service: Service) -> None:
    service.start()
    master, before = service.main_pid(), service.workers()
    killed = next(iter(before))
    service.kill(killed)
    wait_until(
        lambda: killed not in service.workers() and sorted(service.workers().values()) == sorted(before.values()),
        10,
        "two workers again",
    )
    assert service.main_pid() == master
    assert service.get("/") == PAGE
    assert service.says(rf"worker \d \(generation 1, pid {killed}\) killed by SIGKILL")


def test_a_killed_master_comes_back_on_the_same_listener(service: Service) -> None:
    service.start()
    inode = listener_inode(service)
    for _ in range(8):  # more than the five starts in ten seconds that systemd allows by default
        master = service.main_pid()
        service.kill(master)
        assert service.get("/") == PAGE
        assert service.main_pid() != master
    assert listener_inode(service) == inode
    assert int(service.show("NRestarts")) == 8


def test_a_hung_master_is_replaced_by_the_watchdog(service: Service) -> None:
    drop_in = "/run/systemd/system/pyserver.service.d/watchdog.conf"
    service.machine.write(drop_in, "[Service]\nWatchdogSec=2\n")
    service.machine.output("systemctl", "daemon-reload")
    try:
        service.start()
        master = service.main_pid()
        service.machine.output("kill", "-STOP", str(master))
        assert service.get("/") == PAGE
        assert service.main_pid() != master
        assert service.says("Watchdog timeout")
    finally:
        service.machine.output("rm", drop_in)
        service.machine.output("systemctl", "daemon-reload")


def test_restarts_under_load_lose_nothing(service: Service) -> None:
    service.start()
    inode = listener_inode(service)
    with service.load() as seen:
        for _ in range(4):
            service.machine.output("systemctl", "restart", "pyserver")
    assert seen.lost == {}
    assert seen.answered > 4 * 4  # each of four clients at each restart, however slow the machine is
    assert listener_inode(service) == inode


def test_stop_is_clean(service: Service) -> None:
    service.start()
    service.get("/")
    service.stop()
    assert service.show("Result") == "success"
    assert service.show("ExecMainStatus") == "0"
    assert service.show("ActiveState", "pyserver.socket") == "inactive"
    service.assert_nothing_left()
    with pytest.raises(CommandError):
        service.get("/")


# -- a bad configuration -------------------------------------------------------------------------------


def test_a_bad_configuration_is_one_line_and_exit_78(service: Service) -> None:
    service.configure(UNKNOWN_KEY)
    with pytest.raises(CommandError):
        service.start()
    records = service.journal()
    exits = [record for record in records if record.get("EXIT_STATUS") == "78"]
    assert exits
    said = [
        str(record["MESSAGE"])
        for record in records
        if record.get("SYSLOG_IDENTIFIER") == "pyserver"
        and record["_SYSTEMD_INVOCATION_ID"] == exits[0]["INVOCATION_ID"]
    ]
    line = 1 + UNKNOWN_KEY.splitlines().index("wrokers = 2")
    assert len(said) == 1
    assert said[0].startswith(f"/etc/pyserver/pyserver.toml:{line}: ")
    assert "workers" in said[0]


def test_clients_wait_for_the_repair_of_a_bad_configuration(service: Service) -> None:
    service.configure(UNKNOWN_KEY)
    service.machine.output("systemctl", "start", "pyserver.socket")
    with pytest.raises(CommandError, match="timed out"):  # not refused
        service.get("/", within=1)
    service.configure(CONFIG)
    assert service.get("/") == PAGE


def listener_inode(service: Service) -> str:
    """Return the identity of the socket that listens on port 80."""
    sockets = service.machine.output("ss", "--listening", "--tcp", "--numeric", "--extended", "sport = :80")
    inodes = re.findall(r"ino:(\d+)", sockets)
    assert len(inodes) == 1, sockets
    return str(inodes[0])
