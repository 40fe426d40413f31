"""The copy without counting is the same server but for that."""

import ast
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.uncounted import PROJECT, make, stripped


def test_what_counts_is_taken_out_and_nothing_else() -> None:
    source = """
def f(self, tally, data):
    self._tally = tally
    received = 0
    received += len(data)
    if data:
        tally.requests += 1
    else:
        self._tally.classes[5] += 1
    tally.classes[2] += 1
    self._tally.took(3)
    if self.send(data):
        tally.bytes_sent += 1
        self.close(data)
    return tally.requests
"""
    text, taken = stripped(source)
    kept = ["self._tally = tally", "received = 0", "if self.send(data):", "self.close(data)", "return tally.requests"]
    assert [line for line in map(str.strip, text.splitlines()[1:]) if line != "pass"] == kept
    assert taken == 7


def test_the_copy_answers_and_counts_nothing(tmp_path: Path) -> None:
    assert make(PROJECT / "service", tmp_path) > 30
    for file in (tmp_path / "service").rglob("*.py"):
        ast.parse(file.read_text())
    asked = """
import sys
from pathlib import Path
from tests.unit.worker.conftest import Hall
site = Path(sys.argv[1]); (site / "small.txt").write_bytes(b"small\\n"); (site / "log").touch()
hall = Hall(site, site / "log")
client = hall.client()
for _ in range(5):
    client.sendall(b"GET /small.txt HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    hall.turn()
    assert client.recv(9999).endswith(b"small\\n")
print(hall.tally.requests, sum(hall.tally.classes), hall.tally.bytes_sent)
"""
    (tmp_path / "site").mkdir()
    for service, counted in ((tmp_path / "service", "0 0 0"), (PROJECT / "service", "5 5 ")):
        told = subprocess.run(
            [sys.executable, "-P", "-c", asked, str(tmp_path / "site")],
            env=os.environ | {"PYTHONPATH": f"{service}:{PROJECT}"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert told.stdout.startswith(counted)
