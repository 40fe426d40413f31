"""What the units ask of a kernel, seen where the kernel is systemd's own: memory, addresses; in a virtual machine.

In a container control groups are the host's, and there the memory controller may belong to version 1, which systemd
does not ask; and what BPF does for it nspawn keeps away. So Debian is booted by its own kernel in QEMU, runs vm.sh, and
says on its console what it saw.

Owns:    the disks of the machine, in a folder that goes with the run; the machine, which ends with us.
Fails:   exit status 1 with what does not hold, or why no machine can be booted.
Used by: tests/systemd/kernel.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.systemd.image import SUITES, BuildError, image
from tests.systemd.machine import Unavailable
from tests.systemd.service import CONFIG, INSTALL, LAUNCHER, TREE

DESCRIPTION = """\
Boot Debian with each systemd and its own kernel in QEMU, and see what takes a kernel to show: a worker that is killed
for want of memory while the service lives (OOMPolicy=continue), bounds for memory, and who may connect by address.
Needs root, mmdebstrap and qemu-system-x86; a few minutes for each."""

KERNEL = "linux-image-cloud-amd64"
AFTERWARDS = "systemd.run_success_action=poweroff systemd.run_failure_action=poweroff"
SAYS = "vm: "  # what vm.sh puts before each line of JSON

# What has to be in what it says, and why.
WANTED: dict[str, dict[str, Any]] = {
    "continue": {
        "oom_kill": "a process was killed by the kernel",
        "told_by_systemd": "systemd noticed",
        "told_by_us": "so did the master",
        "same_master": "the master lives",
        "active": "so does the service",
        "served": "a page is served afterwards",
    },
    "stop": {"told_by_systemd": "systemd noticed", "stopped": "and ends the service, which is what it does by default"},
    "limits": {"memory_max": "the bound of examples/limits.conf is the kernel's"},
    "addresses": {
        "allowed": "an address of examples/addresses.conf is answered",
        "refused": "another one is not",
        "counted": "bytes are counted by the socket",
    },
}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="tests/systemd/kernel", description=DESCRIPTION)
    parser.add_argument("--suite", choices=SUITES, action="append", help="one of them; several times: several")
    parser.add_argument(
        "--accelerator", default="tcg", help="of QEMU: kvm is ten times as fast, where it works (default: %(default)s)"
    )
    parser.add_argument("--console", action="store_true", help="show what the machine says all along")
    options = parser.parse_args(arguments)
    amiss = 0
    try:
        for suite in options.suite or SUITES:
            with tempfile.TemporaryDirectory(prefix="pyserver-") as folder:
                seen = boot(suite, Path(folder), options.accelerator, console=options.console)
            print(f"systemd {seen['versions']['systemd']}, Linux {seen['versions']['linux']}:")
            for what, wanted in WANTED.items():
                for name, meaning in wanted.items():
                    holds = bool(seen.get(what, {}).get(name))
                    amiss += not holds
                    print(f"  {what}: {meaning}: {'yes' if holds else 'NO'}")
    except (Unavailable, BuildError) as error:
        print(f"kernel: {error}", file=sys.stderr)
        return 1
    return 1 if amiss else 0


def boot(suite: str, folder: Path, accelerator: str, *, console: bool) -> dict[str, dict[str, Any]]:
    """Boot a suite and return what it said of each thing."""
    program = shutil.which("qemu-system-x86_64")
    if program is None:
        raise Unavailable("not installed: qemu-system-x86_64 (apt-get install qemu-system-x86)")
    root = image(suite, (KERNEL,))
    ours = folder / "ours"
    for source, place in (
        (TREE / "service/pyserver", "service/pyserver"),
        (TREE / "systemd", "systemd"),
        (TREE / "www", "www"),
    ):
        shutil.copytree(source, ours / place, ignore=shutil.ignore_patterns("__pycache__"))
    (ours / "launcher").write_text(LAUNCHER)
    (ours / "pyserver.toml").write_text(CONFIG)
    (ours / "install").write_text(INSTALL)
    shutil.copy(Path(__file__).with_suffix(".sh"), ours / "run")
    disks = [disk(root, folder / "root.img", 3000), disk(ours, folder / "ours.img", 64)]
    kernel, initrd = (max((root / "boot").glob(f"{name}-*")) for name in ("vmlinuz", "initrd.img"))
    run = "systemd.run='/bin/sh -c \"mount --read-only /dev/vdb /mnt && sh /mnt/run\"'"
    with subprocess.Popen(
        [
            *("setpriv", "--pdeathsig=KILL"),
            program,
            *("-accel", accelerator),
            *("-m", "1024", "-smp", "2", "-nographic", "-no-reboot", "-nic", "none"),
            *(each for path in disks for each in ("-drive", f"file={path},format=raw,if=virtio,snapshot=on")),
            *("-kernel", kernel, "-initrd", initrd, "-append"),
            f"root=/dev/vda rw console=ttyS0 quiet systemd.mask=serial-getty@ttyS0.service {run} {AFTERWARDS}",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as machine:
        assert machine.stdout is not None
        said = []
        for raw in machine.stdout:
            said.append(raw.decode(errors="replace").rstrip())
            if console:
                print(said[-1], flush=True)
    lines = [line.partition(SAYS)[2] for line in said if SAYS in line]
    seen: dict[str, dict[str, Any]] = {}
    for line in lines:
        seen |= json.loads(line)
    if "versions" not in seen:
        raise Unavailable(f"{suite} does not boot in QEMU here: {chr(10).join(said[-20:])}")
    return seen


def disk(content: Path, path: Path, megabytes: int) -> Path:
    """Make a file system of a folder."""
    made = subprocess.run(
        ["mke2fs", "-q", "-t", "ext4", "-d", content, path, f"{megabytes}M"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode:
        raise BuildError(f"mke2fs ended with {made.returncode}: {made.stderr}")
    return path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
