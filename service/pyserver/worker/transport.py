"""Send an answer to a socket as far as it goes, from memory and from a file, without ever blocking.

Owns:    the state of an answer that could not be sent at once.
Never:   waits: it says what it waits for.
Used by: worker.connection, worker.pace, worker.client (Outgoing); worker.entrance, for how to send.
"""

import errno
import fcntl
import os
import socket
import sys
import termios
from enum import Enum, auto
from typing import Final

from pyserver.files.resolve import OpenFile
from pyserver.http.response import Response
from pyserver.limits import SENDFILE_BYTES

# Never wait, and report a closed peer as an error and not as SIGPIPE (send(2)).
SEND: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
# The head of an answer whose content follows from a file: the kernel puts both into one segment.
SEND_MORE: Final = SEND | socket.MSG_MORE

# What sendfile(2) says of the file's disk, and never of the socket.
_OF_THE_DISK: Final = frozenset({errno.EIO, errno.ESTALE, errno.EBADMSG, errno.EUCLEAN, errno.EREMOTEIO})


class Outcome(Enum):
    """How far an attempt came."""

    DONE = auto()  # all of it is with the kernel
    SOCKET = auto()  # the socket's buffer is full
    TURN = auto()  # the socket would take more; others are to have their turn
    DISK = auto()  # the file is not in memory: whoever goes on may block
    SHRANK = auto()  # the file ends before the length that the head announced
    UNREAD = auto()  # the disk cannot read the file
    CHANGED = auto()  # the file was overwritten: what has gone out and what is left are not of one content
    GONE = auto()  # the client is


def untaken(connection: socket.socket) -> int:
    """Return how many bytes the kernel has taken for a client that has not (SIOCOUTQ, tcp(7), unix(7))."""
    return int.from_bytes(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def send_at_once(connection: socket.socket, response: Response) -> int:
    """Send what follows the head from a file, if that takes one call and no disk; return how much of it went out.

    The common case of advance(), without what it needs to go on. The socket is in non-blocking mode, and the file was
    looked at a moment ago. Raises OSError when the client is gone.
    """
    source = response.source
    if response.more or response.count > SENDFILE_BYTES or not isinstance(source, OpenFile):
        return 0
    if not source.in_memory(response.offset, response.count):
        return 0
    try:
        return os.sendfile(connection.fileno(), source.fd, response.offset, response.count)
    except BlockingIOError:
        return 0
    except OSError as error:
        if error.errno in _OF_THE_DISK:  # advance() says so
            return 0
        raise


class Outgoing:
    """What is left of an answer."""

    __slots__ = ("_left", "_more", "_offset", "_response", "_source", "_stamp", "_wire", "sent")

    def __init__(self, response: Response, sent: int) -> None:
        self._response = response
        of_file = max(0, sent - len(response.wire))
        self._wire = memoryview(response.wire)[sent:]
        self._source = response.source
        self._stamp = getattr(response.source, "stamp", None)  # now: others who are answered from it look again
        self._offset = response.offset + of_file
        self._left = response.count - of_file
        self._more = response.more
        self.sent = sent  # bytes so far, head included

    @property
    def response(self) -> Response:
        """The answer this is of."""
        return self._response

    @property
    def all_of_it(self) -> int:
        """Bytes that it has, head included."""
        response = self._response
        more = sum(len(part) if isinstance(part, bytes) else part[1] for part in response.more)
        return len(response.wire) + response.count + more

    @property
    def content_sent(self) -> int:
        """Bytes of content so far."""
        return max(0, self.sent - (self.all_of_it - self._response.content_bytes))

    def advance(self, connection: socket.socket, *, may_block: bool = False) -> Outcome:
        """Send on. The socket is in non-blocking mode; only reading the file may block, and only if it may."""
        turn = self.sent + SENDFILE_BYTES
        try:
            while True:
                while self._wire:
                    count = connection.send(self._wire, SEND_MORE if self._left or self._more else SEND)
                    self.sent += count
                    self._wire = self._wire[count:]
                if self._left:
                    stopped = self._from_file(connection.fileno(), may_block=may_block)
                    if stopped is not None:
                        return stopped
                if not self._more:
                    return Outcome.DONE
                if self.sent >= turn:
                    return Outcome.TURN
                self._take_next()
        except BlockingIOError:
            return Outcome.SOCKET
        except OSError:
            return Outcome.GONE

    def _take_next(self) -> None:
        """Begin with the next of what there is more."""
        part, *_ = self._more
        self._more = self._more[1:]
        if isinstance(part, bytes):
            self._wire = memoryview(part)
        else:
            self._offset, self._left = part

    def _from_file(self, connection: int, *, may_block: bool) -> Outcome | None:
        """Send some of the file (sendfile(2)); a short count is the socket's, or the file's end. None: all is sent."""
        source = self._source
        assert source is not None
        count = min(self._left, SENDFILE_BYTES)
        # A source that cannot be asked is in memory by nature.
        in_memory = getattr(source, "in_memory", None)
        if not may_block and in_memory is not None and not in_memory(self._offset, count):
            return Outcome.DISK
        # Before each part, also the last, when the client does not have all of it yet: it costs two microseconds, and
        # the part some hundreds. What the kernel has taken are still the file's own pages (docs/http.md).
        if self._stamp is not None:
            overwritten = getattr(source, "overwritten", None)
            if overwritten is not None and overwritten(self._stamp):
                ends_before = os.fstat(source.fd).st_size < self._offset + self._left
                return Outcome.SHRANK if ends_before else Outcome.CHANGED
        try:
            sent = os.sendfile(connection, source.fd, self._offset, count)
        except OSError as error:
            if error.errno in _OF_THE_DISK:
                return Outcome.UNREAD
            raise
        if sent == 0:
            return Outcome.SHRANK
        self.sent += sent
        self._offset += sent
        self._left -= sent
        return Outcome.TURN if self._left else None
