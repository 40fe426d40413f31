"""What a service manager does in the child between fork and exec: descriptors, LISTEN_*, limits, capabilities.

A program of its own, because the test process has threads, in whose forked children Python must not run:
launch.py JSON COMMAND... ends by becoming COMMAND, with the same process id.
"""

import ctypes
import fcntl
import json
import os
import resource
import sys

FIRST = 3  # SD_LISTEN_FDS_START
ASIDE = 100
PR_CAPBSET_DROP = 24  # prctl(2)


def main() -> None:
    order = json.loads(sys.argv[1])
    if order["listeners"]:
        # First out of the way: a descriptor may be in the place of another.
        aside = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, ASIDE) for descriptor in order["listeners"]]
        for place, descriptor in enumerate(aside, FIRST):
            os.dup2(descriptor, place, inheritable=True)
            os.close(descriptor)
        os.closerange(FIRST + len(aside), ASIDE)
        os.environ["LISTEN_FDS"] = str(len(aside))
        os.environ["LISTEN_PID"] = str(order["listen_pid"] or os.getpid())
        if order["names"]:
            os.environ["LISTEN_FDNAMES"] = ":".join(order["names"])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if order["nofile"]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (order["nofile"], order["nofile"]))
    for capability in order["without"]:
        # Root gets its capabilities at exec out of the bounding set; for others this is refused, and not needed.
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.execv(sys.argv[2], sys.argv[2:])


main()
