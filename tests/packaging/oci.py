"""The steps of the Containerfile, done in root file systems without a container engine.

Owns:    a copy of a small Debian for each stage, below the folder that it is given.
Never:   knows more of the form than our Containerfile has: FROM, RUN, COPY, WORKDIR and what describes the result.
Fails:   Unavailable where no root file system can be made; AssertionError with what a step said.
Used by: tests.packaging.trials.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.packaging.image import CACHE
from tests.systemd.image import command, lock, need_tools

# debian:13-slim: the same packages, by the same tool.
BASES = {"debian:13-slim": "trixie"}

# What a registry's client is told by the host's environment; a certificate of its own goes along as a copy.
HANDED_ON = ("PIP_", "SSL_CERT_FILE", "REQUESTS_")

# Mounts for a root file system, in namespaces of their own. Nothing of the host is in them: a step runs as root.
AROUND = """
mount -t proc proc "$1/proc"
mount -t tmpfs tmpfs "$1/dev"
mkdir -m 1777 "$1/dev/shm"
mknod -m 666 "$1/dev/null" c 1 3
mknod -m 666 "$1/dev/zero" c 1 5
mknod -m 444 "$1/dev/urandom" c 1 9
ln -s /proc/self/fd "$1/dev/fd"
"""


class Image:
    """What a build would leave: a root file system, and how it is started."""

    def __init__(self, recipe: Path, context: Path, folder: Path) -> None:
        self._context, self._folder = context, folder
        self._stages: dict[str, Path] = {}
        self._place = ""
        self.root = Path()
        self.about: dict[str, str] = {}
        text = re.sub(r"^#.*\n", "", recipe.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
        for line in filter(None, text.splitlines()):
            instruction, _, given = line.partition(" ")
            getattr(self, f"_{instruction.lower()}", lambda given, name=instruction: self.about.update({name: given}))(
                given.strip()
            )

    def command(self) -> list[str]:
        """Return what becomes PID 1."""
        return [*json.loads(self.about["ENTRYPOINT"]), *json.loads(self.about["CMD"])]

    def _from(self, given: str) -> None:
        base, _, name = given.partition(" AS ")
        self.root = self._folder / (name or "last")
        self._place = "/"
        shutil.copytree(small(BASES[base]), self.root, symlinks=True, ignore=shutil.ignore_patterns("dev"))
        (self.root / "dev").mkdir()
        self._stages[name] = self.root

    def _workdir(self, given: str) -> None:
        self._place = given
        (self.root / given.strip("/")).mkdir(parents=True, exist_ok=True)

    def _copy(self, given: str) -> None:
        origin = self._context
        if given.startswith("--from="):
            stage, _, given = given.removeprefix("--from=").partition(" ")
            origin = self._stages[stage]
        *names, place = given.split()
        to = self.root / place.strip("/")
        for name in names:
            found = origin / name.strip("/")
            if found.is_dir():  # its files, as COPY has it
                shutil.copytree(found, to, symlinks=True, dirs_exist_ok=True)
            else:
                into = to / found.name if place.endswith("/") else to
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(found, into)

    def _run(self, given: str) -> None:
        environ = {name: value for name, value in os.environ.items() if name.startswith(HANDED_ON)}
        for name in [name for name, value in environ.items() if Path(value).is_file()]:
            shutil.copyfile(environ[name], self.root / "run/certificates")
            environ[name] = "/run/certificates"
        environ |= {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        script = f'{AROUND}exec chroot "$1" /bin/sh -ec \'cd "$0"; eval "$1"\' "$2" "$3"'
        unshared = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", script, "sh")
        done = subprocess.run(
            [*unshared, str(self.root), self._place, given],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"RUN {given} ended with {done.returncode}: {done.stdout[-3000:]}"


def small(suite: str) -> Path:
    """Return a Debian with nothing in it, made once."""
    need_tools()
    root = CACHE / f"slim-{suite}"
    with lock():
        if not root.is_dir():
            part = root.with_name(f"{root.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            command("mmdebstrap", "--variant=minbase", suite, str(part))
            part.rename(root)
    return root
