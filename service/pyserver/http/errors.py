"""What a client did wrong, with what it must be told and whether the connection can go on.

Owns:    the exception that http raises.
Used by: http (raises), worker and handlers (answer).
"""


class ProtocolError(Exception):
    """The client broke HTTP. `status` answers it; `close` says that the next request can no longer be found."""

    def __init__(self, status: int, why: str, *, close: bool = True) -> None:
        super().__init__(why)
        self.status = status
        self.why = why
        self.close = close
