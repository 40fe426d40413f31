"""The package in a booted Debian: what an administrator types to install, upgrade and remove it, and then finds.

Owns:    the package's state in there; reset() puts it back to "never installed".
Never:   calls a maintainer script or dpkg by hand: apt does.
Fails:   AssertionError or CommandError: each is a test's failure.
Used by: tests.packaging.
"""

import re
import subprocess

from tests.packaging.builds import Builds
from tests.systemd.machine import Machine
from tests.systemd.service import Service

# What the package enables.
BOTH = ("pyserver.socket", "pyserver.service")

# Where the builds are seen in the machine.
SHELF = "/packages"

APT = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet", "--yes")


class Package(Service):
    """pyserver as apt knows it, in one machine."""

    def __init__(self, machine: Machine, builds: Builds) -> None:
        super().__init__(machine)
        self.builds = builds

    def reset(self) -> None:
        """Put the machine into the state before the first installation, and forget the journal so far."""
        if self.state() != "":
            self.purge()
        self.machine.output("rm", "-rf", "/var/www/pyserver")
        self.machine.output("systemctl", "reset-failed")
        self._cursor = self._last_cursor()

    # -- apt -------------------------------------------------------------------------------------------

    def install(self, version: str, *options: str) -> str:
        """Install or upgrade to a version; return all that was said."""
        return self._said(*self.installing(version, *options))

    def installing(self, version: str, *options: str) -> list[str]:
        """Return what to run in the machine to install a version."""
        return [*APT, *options, "install", self.path(version)]

    def path(self, version: str) -> str:
        """Return where in the machine a version lies."""
        return f"{SHELF}/{self.builds.deb(version)}"

    def remove(self) -> str:
        return self._said(*APT, "remove", "pyserver")

    def purge(self) -> str:
        return self._said(*APT, "purge", "pyserver")

    def _said(self, *argv: str) -> str:
        # One stream: the messages of maintainer scripts go to standard error.
        return self.machine.output("sh", "-c", 'exec "$@" 2>&1', "sh", *argv, within=300)

    # -- what is found ---------------------------------------------------------------------------------

    def state(self) -> str:
        """Return what dpkg has of us, like "installed 0.1.0" or "config-files 0.1.0"; "" if it never heard of us."""
        asked = ("dpkg-query", "--show", "--showformat=${db:Status-Status} ${Version}", "pyserver")
        return self.machine.output(*asked, status=None)

    def enabled(self) -> list[str]:
        """Return what systemctl says of each of the two units: enabled, disabled, not-found."""
        return [self.show("UnitFileState", unit) or "not-found" for unit in BOTH]

    def active(self) -> list[str]:
        return [self.show("ActiveState", unit) for unit in BOTH]

    def listener(self) -> str:
        """Return the identity of the socket that listens on port 80; "" if there is none."""
        sockets = self.machine.output("ss", "--listening", "--tcp", "--numeric", "--extended", "sport = :80")
        inodes = re.findall(r"ino:(\d+)", sockets)
        assert len(inodes) <= 1, sockets
        return str(inodes[0]) if inodes else ""

    def complaints(self) -> list[str]:
        """Return what the journal has of our units since reset() that is a warning or worse."""
        return [str(record["MESSAGE"]) for record in self.journal() if int(record.get("PRIORITY", 6)) <= 4]

    def files(self) -> set[str]:
        """Return all files and folders of the machine that have something to do with us by their names."""
        places = ("/etc", "/usr", "/var", "/run/systemd", "/opt", "/root", "/home", "/dev/shm")
        named = self.machine.output("find", *places, "-name", "*pyserver*", "-o", "-path", "*/pyserver/*")
        return set(named.splitlines())

    def start_apt(self, version: str) -> "subprocess.Popen[str]":
        """Begin an upgrade and return while it runs."""
        argv = self.machine.command(*self.installing(version))
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
