"""systemctl reload, typed as an administrator would: nobody notices, or nothing has changed and it says why."""

import re

import pytest
from tests.systemd.image import SUITES
from tests.systemd.machine import CommandError, wait_until
from tests.systemd.service import CONFIG, Service

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(600)]

each_systemd = pytest.mark.parametrize("suite", SUITES, indirect=True, scope="session")


def reload(service: Service) -> None:
    service.machine.output("systemctl", "reload", "pyserver")


def test_twenty_reloads_under_load_cost_nothing(service: Service) -> None:
    service.start()
    master = service.main_pid()
    with service.clients(idle=200) as seen:
        for _ in range(20):
            reload(service)
            assert service.show("ActiveState") == "active", "when the command returns it is done"
    assert seen.failures == []
    assert seen.idle == {"lives": 200}
    assert min(seen.answered.values()) > 20
    assert service.main_pid() == master
    assert int(service.show("NRestarts")) == 0
    print(f"20 reloads: {seen.answered} answered, the longest wait {seen.longest * 1000:.0f} ms")
    status = service.machine.output("pyserver", "status")
    assert "reloads     20, the last " in status
    wait_until(lambda: len(service.workers()) == 2, 10, "the earlier workers gone")


@each_systemd
def test_new_configuration_is_in_force(service: Service) -> None:
    service.start()
    service.machine.write("/srv/other/index.html", "other\n")
    service.configure(CONFIG.replace("/var/www/pyserver", "/srv/other").replace("workers = 2", "workers = 3"))
    reload(service)
    assert service.get("/") == "other\n"
    wait_until(lambda: len(service.workers()) == 3, 10, "three workers")
    wait_until(lambda: "serving 3/3 workers" in service.show("StatusText"), 10, "the status line")


@each_systemd
def test_a_reload_that_fails_says_why_and_changes_nothing(service: Service) -> None:
    service.start()
    workers, master = service.workers(), service.main_pid()
    service.configure(CONFIG.replace("workers = 2", "wrokers = 2"))
    with pytest.raises(CommandError, match=r"Job for pyserver.service failed"):
        reload(service)
    reason = "unknown key 'wrokers' in [server]; did you mean 'workers'?"
    assert service.is_active()
    assert (service.workers(), service.main_pid()) == (workers, master)
    assert service.show("StatusText").endswith(f"; reload failed: /etc/pyserver/pyserver.toml:2: {reason}")
    errors = [str(each["MESSAGE"]) for each in service.journal() if each["PRIORITY"] == "3" and "ROLE" in each]
    assert errors == [f"reload failed: /etc/pyserver/pyserver.toml:2: {reason}"]
    with pytest.raises(
        CommandError, match=re.escape(f"pyserver: reload failed: /etc/pyserver/pyserver.toml:2: {reason}")
    ):
        service.machine.output("pyserver", "reload")
    service.get("/")
    service.configure(CONFIG)
    reload(service)
    assert "reload failed" not in service.show("StatusText")


def test_only_root_and_the_group_may_order_it(service: Service) -> None:
    service.start()
    as_nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
    with pytest.raises(CommandError, match="permission denied; root may order it"):
        service.machine.output(*as_nobody, "pyserver", "reload")
    in_group = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--groups=pyserver")
    assert "reloaded within" in service.machine.output(*in_group, "pyserver", "reload")


def test_the_control_socket_comes_and_goes_with_the_service(service: Service) -> None:
    service.start()
    assert service.is_active("pyserver-control.socket")
    service.machine.output("systemctl", "restart", "pyserver")
    reload(service)
    service.machine.output("systemctl", "stop", "pyserver.socket", "pyserver.service")
    assert not service.is_active("pyserver-control.socket")
    service.machine.output("test", "!", "-e", "/run/pyserver-control.sock")


def test_a_killed_master_after_a_reload_comes_back(service: Service) -> None:
    service.start()
    reload(service)
    master = service.main_pid()
    service.kill(master)
    service.get("/")
    assert service.main_pid() != master
    reload(service)
    service.get("/")


# -- restart: what goes by way of the descriptor store ---------------------------------------------------


def test_twenty_restarts_under_load_cut_no_idle_connection(service: Service) -> None:
    service.start()
    with service.clients(idle=200) as seen:
        for _ in range(20):
            service.machine.output("systemctl", "restart", "pyserver")
            service.get("/")  # no start is ended before it has served: who waits would wait for several
    assert seen.failures == []
    assert seen.idle == {"lives": 200}
    assert min(seen.answered.values()) > 20
    assert seen.longest < 10, "a machine that stands still, not a client that was forgotten"
    print(f"20 restarts: {seen.answered} answered, the longest wait {seen.longest * 1000:.0f} ms")
    assert service.says(r"^20\d idle connections of an earlier start go on$")


def test_a_stop_closes_what_is_idle(service: Service) -> None:
    """What was left with systemd for a restart is not kept for ever."""
    service.start()
    with service.clients(idle=3, one_shot=0, keep_alive=0) as seen:
        service.stop()
        assert service.says("^3 idle connections left with systemd$")
    assert sum(seen.idle.values()) == 3
    assert seen.idle.keys() <= {"Truncated", "Reset"}


def test_totals_survive_restart_and_kill_and_say_since_when(service: Service) -> None:
    service.start()
    first = service.status()
    for _ in range(5):
        service.get("/")
    service.machine.output("systemctl", "restart", "pyserver")
    service.get("/")
    service.kill(service.main_pid())
    service.get("/")
    service.machine.output("systemctl", "reload", "pyserver")
    service.get("/")
    wait_until(lambda: service.status()["totals"]["requests"] == 8, 10, "all eight counted")
    assert service.status()["since"] == first["since"]
    service.stop()
    service.machine.output("sleep", "1.1")  # since is told in seconds
    service.start()
    assert service.status()["totals"]["requests"] == 0
    assert service.status()["since"] > first["since"]
