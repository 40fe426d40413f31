"""The files of docs/monitoring fit what the server really says: Prometheus, its alerts, Grafana, GoAccess."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from tests.service.client import ask
from tests.service.conftest import Serve
from tests.service.harness import TREE, wait_until

from pyserver.ipc import stats

HERE = TREE / "docs/monitoring"
RULES, RULES_TEST, DASHBOARD = (HERE / name for name in ("alerts.yml", "alerts.test.yml", "grafana.json"))

ADDED = 'job="pyserver", instance="here"'  # that Prometheus adds

UNDER_CI = os.environ.get("CI") == "true"


def needs(program: str, package: str) -> pytest.MarkDecorator:
    """Under CI it is there (./dev sees to it), or the test fails."""
    missing = shutil.which(program) is None and not UNDER_CI
    return pytest.mark.skipif(missing, reason=f"{program} is not installed (./dev test as root, or Debian's {package})")


def promtool(*arguments: str | Path, folder: Path = HERE, status: int = 0) -> str:
    done = subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def expressions() -> list[str]:
    """What the dashboard asks Prometheus for."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def asked_of_prometheus() -> list[str]:
    """The same, with what Grafana puts in for its variables."""
    return [each.replace("$__rate_interval", "5m").replace("$instance", ".*") for each in expressions()]


def bounded() -> list[str]:
    """What the alerts bound; `pyserver_ready == 0` as it stands finds nothing where all is well."""
    rules = re.findall(r"expr: (?:\|\n)?(.*?)\n +(?:for|labels): ", RULES.read_text(), re.DOTALL)
    return [" ".join(re.sub(r" (>|==) [\d.]+$", "", each).split()) for each in rules]


def samples(admin: socket.socket) -> dict[str, str]:
    """What the server says, by series as Prometheus keeps them."""
    text = ask(admin.getsockname(), "/metrics").content.decode()
    told = re.findall(r"^(pyserver_\w+)(?:\{(.*)\})? (\S+)$", text, re.MULTILINE)
    return {
        f"{name}{{{', '.join(filter(None, (labels, ADDED)))}}}": f"{float(value):f}" for name, labels, value in told
    }


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\bpyserver_[a-z_]+[a-z]", text))


def test_every_name_in_them_is_one_of_metrics_and_the_dashboard_has_all_of_these(
    serve: Serve, admin: socket.socket
) -> None:
    """Of samples, as a running server has them; a metric comes from each row of the tables of counters."""
    serve(listeners=[("admin", admin)]).weighed()
    text = ask(admin.getsockname(), "/metrics").content.decode()
    told = set(re.findall(r"^(pyserver_\w+)", text, re.MULTILINE))
    assert len(told) > len(stats.COUNTERS)
    asked = names_in("\n".join(expressions()))
    assert asked - told == set()
    assert names_in(RULES.read_text()) - told == set()
    assert names_in(RULES_TEST.read_text()) - told == set()
    # Of a histogram the buckets are shown. Whoever adds a counter that nobody wants to look at says so here.
    unseen = {f"pyserver_{one.name}_seconds_{part}" for one in stats.HISTOGRAMS for part in ("sum", "count")}
    assert told - asked == unseen


@needs("promtool", "prometheus")
def test_the_dashboard_finds_what_it_asks_for(serve: Serve, admin: socket.socket, tmp_path: Path) -> None:
    """Prometheus evaluates each of its expressions, and those of the alerts, over two looks at a running server.

    A label or a name that is not there, or a division by nothing, would leave a panel empty.
    """
    server = serve(listeners=[("admin", admin)])
    server.weighed()
    before = samples(admin)
    server.ask("/small.txt")

    def moved() -> dict[str, str]:
        after = samples(admin)
        names = ("requests_total", "answer_time_seconds_count", "queue_wait_seconds_count")
        counted = [f"pyserver_{name}{{{ADDED}}}" for name in names]
        return after if all(float(after[each]) > float(before[each]) for each in counted) else {}

    after = wait_until(moved, within=20)
    series = [{"series": each, "values": f"{before[each]} {value}"} for each, value in after.items()]
    assert len(series) > 60
    wanted = [*asked_of_prometheus(), *bounded()]
    # It says what it found wherever that is not what is expected: nothing.
    tests = [{"expr": each, "eval_time": "1m", "exp_samples": []} for each in wanted]
    case = {"interval": "1m", "input_series": [*series, {"series": f"up{{{ADDED}}}", "values": "1 1"}]}
    (tmp_path / "look.json").write_text(json.dumps({"rule_files": [], "tests": [case | {"promql_expr_test": tests}]}))
    said = promtool("test", "rules", "look.json", folder=tmp_path, status=1)
    found = {json.loads(each): value for each, value in re.findall(r'expr: (".*"), time.*\n.*\n +got: (.*)', said)}
    assert [each for each in wanted if each not in found] == []
    assert {each: value for each, value in found.items() if "NaN" in value} == {}
    rate = next(value for each, value in found.items() if each.startswith("sum(rate(pyserver_requests_total"))
    assert float(rate.split()[-1]) > 0


def test_each_class_of_status_in_them_is_one_of_ours() -> None:
    text = "\n".join([*expressions(), RULES.read_text()])
    assert set(re.findall(r'class!?="(.*?)"', text)) == {"1xx", "5xx"}


def test_panels_lie_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in cells)
        taken |= cells


def test_each_alert_is_tried() -> None:
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    tried = re.findall(r"- alertname: (\w+)\n.*\n        exp_alerts:\n          - exp_labels", RULES_TEST.read_text())
    assert len(alerts) == 13
    assert tried == alerts
    assert RULES_TEST.read_text().count('instance="well"') >= len(alerts)


@needs("promtool", "prometheus")
def test_prometheus_takes_them_and_each_alert_does_what_it_is_for() -> None:
    assert "1 rule files found" in promtool("check", "config", "prometheus.yml")
    assert "SUCCESS" in promtool("test", "rules", RULES_TEST.name)


@needs("promtool", "prometheus")
def test_prometheus_understands_what_the_dashboard_asks(tmp_path: Path) -> None:
    rules = [{"record": f"dashboard:{number}", "expr": each} for number, each in enumerate(asked_of_prometheus())]
    (tmp_path / "rules.json").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # it is YAML
    assert f"{len(rules)} rules found" in promtool("check", "rules", "rules.json", folder=tmp_path)


@needs("goaccess", "goaccess")
def test_goaccess_reads_our_log(serve: Serve, tmp_path: Path) -> None:
    """The command of the page, on what a server wrote: it takes every line for what it is."""
    log = tmp_path / "access.log"
    server = serve(access_log=log)
    for target in ("/", "/small.txt", "/small.txt", "/missing%20one", "/?q=%22quoted%22"):
        server.ask(target, 'User-Agent: Mozilla/5.0 (X11; Linux "x86_64") Firefox/140.0', "Referer: http://a.example/")
    with server.client() as client:
        client.send(b'GET "no\x01request" HTTP/9\r\n\r\n')
        assert client.answer().status >= 400
    wait_until(lambda: log.exists() and log.read_bytes().count(b"\n") == 6)
    (line,) = re.findall(r"^goaccess .*$", (HERE / "README.md").read_text(), re.MULTILINE)
    assert "/var/log/pyserver/access.log" in line
    command = line.replace("/var/log/pyserver/access.log", str(log)).replace("report.html", f"{tmp_path}/report.json")
    done = subprocess.run(
        shlex.split(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "report.json").read_text())
    assert (found["general"]["total_requests"], found["general"]["failed_requests"]) == (6, 0)
    asked = {row["data"]: row["hits"]["count"] for row in found["static_requests"]["data"]}
    assert asked["/small.txt"] == 2
    assert {row["data"] for row in found["hosts"]["data"]} == {"127.0.0.1"}
