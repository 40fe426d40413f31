"""BLAKE2b (RFC 7693) from where hashlib has it, without what else hashlib loads.

Owns:    nothing.
Never:   loads OpenSSL, which hashlib does before it hands out this very function: 3 ms of a start.
Fails:   never.
Used by: ipc.clients, handlers.entries, handlers.listing, handlers.variants.
"""

try:
    from _blake2 import blake2b
except ImportError:  # an interpreter that was built to leave it all to OpenSSL
    from hashlib import blake2b

__all__ = ["blake2b"]
