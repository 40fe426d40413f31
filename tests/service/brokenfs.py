"""A file system that fails when it is told to: reading or writing gives EIO, or never comes back. For real, by FUSE.

As a program it is that file system, in one thread, until its end (fuse(4), linux/fuse.h; on the kernel's side it is a
file system like any other, so what a server gets are a disk's errors): brokenfs.py FOLDER NAME... mounts over FOLDER;
each NAME of what is in it before is a file there with that content. It takes an order a line on standard input, and
says each again when it is obeyed:

    read fails      reading gives EIO            write fails     the same for writing
    open fails      opening gives EIO            close fails     what is written is lost at the last moment
    read hangs      reading is answered when it is well again
    well            as any other

`broken` mounts it for the length of a test. Ended in whatever way, all that waits on it gets an error (ENOTCONN).
"""

import contextlib
import ctypes
import errno
import os
import select
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__)

# linux/fuse.h: opcodes
LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, STATFS, RELEASE = 1, 2, 3, 4, 14, 15, 16, 17, 18
FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, INTERRUPT, DESTROY, BATCH_FORGET = 25, 26, 27, 28, 29, 36, 38, 42

IN_HEADER = struct.Struct("=IIQQIIIHH")  # len, opcode, unique, nodeid, uid, gid, pid, total_extlen, padding
OUT_HEADER = struct.Struct("=IiQ")  # len, error, unique
ATTR = struct.Struct("=QQQQQQIIIIIIIIII")  # struct fuse_attr
ROOT = 1  # node of the folder; the files have those that follow
MAX_WRITE = 1 << 17
DIRECT_IO = 1  # FOPEN_DIRECT_IO: nothing of it is in the page cache, so each read comes here

MNT_DETACH = 2  # umount2(2)


class FileSystem:
    """What is in it, and how it is."""

    def __init__(self, device: int, files: dict[str, bytearray]) -> None:
        self.device = device
        self.files = files
        self.names = list(files)
        self.how = "well"
        self.waiting: list[bytes] = []  # requests that are answered when it is well again

    def take(self) -> bool:
        """Answer one request; False at the end of the mount."""
        try:
            request = os.read(self.device, MAX_WRITE + 4096)
        except OSError as error:
            return error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT)
        self.answer(request)
        return True

    def answer(self, request: bytes) -> None:
        _, opcode, unique, node, *_ = IN_HEADER.unpack_from(request)
        if opcode in (FORGET, BATCH_FORGET, INTERRUPT):  # these have no answer
            return
        if opcode == READ and self.how == "read hangs":
            self.waiting.append(request)
            return
        failed = {READ: "read fails", WRITE: "write fails", OPEN: "open fails", FLUSH: "close fails"}.get(
            opcode
        ) == self.how
        if failed:
            content: bytes | int = -errno.EIO
        else:
            handler = HANDLERS.get(opcode)
            content = -errno.ENOSYS if handler is None else handler(self, node, request[IN_HEADER.size :])
        error, content = (content, b"") if isinstance(content, int) else (0, content)
        with contextlib.suppress(FileNotFoundError):  # who asked was killed meanwhile
            os.write(self.device, OUT_HEADER.pack(OUT_HEADER.size + len(content), error, unique) + content)

    def obey(self, order: str) -> None:
        self.how = order
        if order == "well":
            waiting, self.waiting = self.waiting, []
            for request in waiting:
                self.answer(request)

    # -- each kind of request: what it is answered with, or the negated errno --------------------------

    def attributes(self, node: int) -> bytes:
        content = b"" if node == ROOT else self.files[self.names[node - ROOT - 1]]
        mode = stat.S_IFDIR | 0o755 if node == ROOT else stat.S_IFREG | 0o666
        now = 1_700_000_000
        return ATTR.pack(node, len(content), 1, now, now, now, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def on_init(self, _node: int, body: bytes) -> bytes:
        major, minor, read_ahead, _flags = struct.unpack_from("=IIII", body)
        assert major == 7
        return struct.pack("=IIIIHHIIHH8I", 7, min(minor, 31), read_ahead, 0, 16, 12, MAX_WRITE, 1, 0, 0, *[0] * 8)

    def on_lookup(self, _node: int, body: bytes) -> bytes | int:
        name = body.rstrip(b"\0").decode()
        if name not in self.files:
            return -errno.ENOENT
        node = ROOT + 1 + self.names.index(name)
        return struct.pack("=QQQQII", node, 0, 1, 1, 0, 0) + self.attributes(node)

    def on_getattr(self, node: int, _body: bytes) -> bytes:
        return struct.pack("=QII", 1, 0, 0) + self.attributes(node)

    def on_open(self, _node: int, _body: bytes) -> bytes:
        return struct.pack("=QII", 0, DIRECT_IO, 0)

    def on_opendir(self, _node: int, _body: bytes) -> bytes:
        return struct.pack("=QII", 0, 0, 0)

    def on_read(self, node: int, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("=QQI", body)
        return bytes(self.files[self.names[node - ROOT - 1]][offset : offset + size])

    def on_write(self, node: int, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("=QQI", body)
        content = self.files[self.names[node - ROOT - 1]]
        content[offset : offset + size] = body[len(body) - size :]
        return struct.pack("=II", size, 0)

    def on_statfs(self, _node: int, _body: bytes) -> bytes:
        return struct.pack("=QQQQQIIII6I", 1 << 20, 1 << 20, 1 << 20, 100, 100, 4096, 255, 4096, 0, *[0] * 6)

    def nothing(self, _node: int, _body: bytes) -> bytes:
        return b""


HANDLERS: dict[int, Callable[[FileSystem, int, bytes], bytes | int]] = {
    INIT: FileSystem.on_init,
    LOOKUP: FileSystem.on_lookup,
    GETATTR: FileSystem.on_getattr,
    SETATTR: FileSystem.on_getattr,
    OPEN: FileSystem.on_open,
    OPENDIR: FileSystem.on_opendir,
    READ: FileSystem.on_read,
    READDIR: FileSystem.nothing,
    WRITE: FileSystem.on_write,
    STATFS: FileSystem.on_statfs,
    FLUSH: FileSystem.nothing,
    RELEASE: FileSystem.nothing,
    RELEASEDIR: FileSystem.nothing,
    DESTROY: FileSystem.nothing,
}

libc = ctypes.CDLL(None, use_errno=True)


def mount(folder: Path) -> int:
    """Mount over `folder`; return the descriptor by which the kernel asks."""
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
    if libc.mount(b"brokenfs", os.fsencode(folder), b"fuse", 0, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), "mount")
    return device


def main() -> None:
    folder, *names = sys.argv[1:]
    files = {name: bytearray((Path(folder) / name).read_bytes()) for name in names}
    system = FileSystem(mount(Path(folder)), files)
    print("mounted", flush=True)
    while True:
        readable, _, _ = select.select([system.device, 0], [], [])
        if 0 in readable:
            order = sys.stdin.readline().strip()
            if not order:
                return
            system.obey(order)
            print(order, flush=True)
        if system.device in readable and not system.take():
            return


# -- for tests ------------------------------------------------------------------------------------


class Broken:
    """A folder that is mounted so."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        self.folder = folder
        self._process = process

    def end(self) -> None:
        """End it as a crash would: it is mounted still, and whatever is asked of it is an error."""
        self._process.kill()
        self._process.wait(10)

    def unmount(self) -> None:
        """Bring what was in the folder before to light again."""
        libc.umount2(os.fsencode(self.folder), MNT_DETACH)

    def order(self, order: str) -> None:
        """Make it fail, or be well, from now on."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == order + "\n"


@contextlib.contextmanager
def broken(folder: Path) -> Iterator[Broken]:
    """Mount it over a folder, whose files are there with their content, until the end of a block."""
    names = sorted(path.name for path in folder.iterdir())
    command = [sys.executable, "-I", str(HERE), str(folder), *names]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        disk = Broken(folder, process)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "mounted\n"
            yield disk
        finally:
            disk.end()  # whatever waits on it gets an error
            disk.unmount()


def available() -> bool:
    """Tell whether we may mount such a thing here."""
    return os.geteuid() == 0 and os.access("/dev/fuse", os.R_OK | os.W_OK)


if __name__ == "__main__":
    main()
