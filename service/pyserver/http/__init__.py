"""What the client says and hears: HTTP/1.1, without I/O (RFC 9110, RFC 9112)."""
