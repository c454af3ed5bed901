#!/usr/bin/env python3
"""One of the workers of `web`: it has the agent count each request, and answers with what it was told."""

import json
import os
import signal
import socket
import sys

EXCHANGE_TIME_MAX = 5  # Seconds that a client, or the agent, may take.

listener = socket.socket(fileno=3)  # LISTEN_FDS: the first socket is descriptor 3.
channel = socket.socket(fileno=int(os.environ["SHEPHERD_CHANNEL_FD"]))
channel.settimeout(EXCHANGE_TIME_MAX)  # Without an answer it ends, and shepherd starts another.
messages = channel.makefile("r", encoding="utf-8")


def count():
    """Has the agent count one more, and returns the sum of all workers."""
    channel.sendall(b'{"to": "service:agent", "data": "hit"}\n')
    while True:
        data = json.loads(messages.readline())["data"]
        if isinstance(data, dict) and "total" in data:
            return data["total"]


def serve(connection):
    connection.settimeout(EXCHANGE_TIME_MAX)
    connection.recv(8192)
    body = f"{count()} {os.getpid()}\n"
    head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall((head + body).encode())


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
while True:
    connection, _ = listener.accept()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # A request is finished first.
    try:
        with connection:
            serve(connection)
    except ConnectionError as error:
        print(f"web: {error}", flush=True)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
