"""Clients that never stop asking: a new connection for each request, until standard input ends.

Says at the end, as JSON: how many were answered in full, and what was lost and why.
A program of its own, because it runs in the network of a container: load.py PORT THREADS.
"""

import json
import socket
import sys
import threading
from collections import Counter

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def ask(port: int) -> None:
    """Send one request and read its whole answer; raise what went wrong."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(REQUEST)
        answer = b""
        while data := connection.recv(65536):
            answer += data
    head, end, content = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 ") or not end:
        raise ValueError(f"answered {answer[:40]!r}")
    announced = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    if len(content) != int(announced.partition(b":")[2]):
        raise ValueError(f"answered {len(content)} bytes, {announced.decode()}")


def main() -> None:
    port, threads = int(sys.argv[1]), int(sys.argv[2])
    over = threading.Event()
    answered, lost = [0] * threads, Counter[str]()

    def client(number: int) -> None:
        while not over.is_set():
            try:
                ask(port)
                answered[number] += 1
            except (OSError, ValueError) as error:
                lost[f"{type(error).__name__}: {error}"] += 1

    clients = [threading.Thread(target=client, args=(number,)) for number in range(threads)]
    for each in clients:
        each.start()
    sys.stdin.read()
    over.set()
    for each in clients:
        each.join()
    json.dump({"answered": sum(answered), "lost": lost}, sys.stdout)


if __name__ == "__main__":
    main()
