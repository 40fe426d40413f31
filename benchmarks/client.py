"""The client: one request by hand to see what a server answers, then as many as wrk can send.

Owns:    one connection for the time of `ask`; one wrk for the time of `load`.
Fails:   Failed, with what was not as it should be. A run with an error is no measurement.
Used by: benchmarks.measure, benchmarks.extras.
"""

import json
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

SCRIPT: Final = Path(__file__).with_name("wrk.lua")
_PATIENCE_S: Final = 20


class Failed(Exception):
    """A server did not answer as the workload expects."""


class Answer(NamedTuple):
    """What came back for one request."""

    status: int
    fields: dict[str, str]
    content: bytes
    wire_bytes: int  # all that came: head, content, framing


class Run(NamedTuple):
    """What wrk counted."""

    requests: int
    seconds: float
    bytes: int
    p50_us: int
    p99_us: int
    connect: int
    read: int
    write: int
    timeout: int
    status: int

    @property
    def errors(self) -> dict[str, int]:
        """Return what went wrong, by kind; answers of 400 and above are no error here."""
        kinds = {"connect": self.connect, "read": self.read, "write": self.write, "timeout": self.timeout}
        return {kind: count for kind, count in kinds.items() if count}


def ask(port: int, request: bytes) -> Answer:
    """Send one request, and read one answer whole."""
    with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S) as connection:
        connection.sendall(request)
        with connection.makefile("rb") as stream:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                line = stream.readline()
                if not line:
                    raise Failed(f"no answer to {request.splitlines()[0].decode()}")
                head += line
            status, fields = read_head(head)
            if status == 304:
                return Answer(status, fields, b"", len(head))
            if fields.get("transfer-encoding") == "chunked":
                content, framing = _read_chunked(stream)
                return Answer(status, fields, content, len(head) + len(content) + framing)
            if "content-length" not in fields:
                raise Failed(f"an answer {status} without Content-Length")
            content = stream.read(int(fields["content-length"]))
            return Answer(status, fields, content, len(head) + len(content))


def _read_chunked(stream: BinaryIO) -> tuple[bytes, int]:
    """Return the content, and how many bytes its framing had."""
    content, framing = b"", 0
    while True:
        line = stream.readline()
        chunk = stream.read(int(line.split(b";")[0], 16))
        framing += len(line) + len(stream.readline())
        if not chunk:
            return content, framing
        content += chunk


def read_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Return status and fields of an answer's head; names in lower case."""
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    fields = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip()
    return int(first.split()[1]), fields


def load(
    url: str,
    connections: int,
    seconds: int,
    options: Sequence[str],
    script: Sequence[str],
    core: int,
    niceness: int = 0,
) -> Run:
    """Let wrk send requests on so many connections for so long."""
    nice = ["nice", "-n", str(niceness)] if niceness else []
    done = subprocess.run(
        [
            *nice, "taskset", "--cpu-list", str(core),
            "wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s",
            "--script", str(SCRIPT), *options, url, "--", *script,
        ],
        check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=seconds + 60,
    )  # fmt: skip
    if done.returncode != 0:
        raise Failed(f"wrk ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return parse(done.stdout)


def parse(output: str) -> Run:
    """Return the figures out of what wrk and wrk.lua printed."""
    for line in output.splitlines():
        if line.startswith("RESULT "):
            return Run(**json.loads(line.removeprefix("RESULT ")))
    raise Failed(f"wrk told no result: {output.strip()}")
