#!/usr/bin/env python3
"""An HTTP/1.1 worker that accepts nothing itself: shepherd gives it one connection after the other.

    shepherd run -n 4 -p 8000 --balance dispatch -- ./dispatch.py

Needs Python 3.9 and later. It leaves SIGTERM alone, since its channel ends right before that.
"""

import os
import signal
import socket
import threading


def main():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    channel = socket.socket(fileno=3 + names.index("dispatch"))
    while True:
        name, descriptors, _flags, _address = socket.recv_fds(channel, 255, 1)
        if not name:
            break  # Nothing more comes; the threads finish what they have.
        # Before anything is read: it is ours from here on, whatever comes.
        channel.send(b"+" if descriptors else b"!")
        for descriptor in descriptors:
            connection = socket.socket(fileno=descriptor)
            threading.Thread(target=serve, args=(connection, channel)).start()


def serve(connection, channel):
    try:
        with connection:
            answer(connection)
    except OSError:
        pass  # A client that went away is no concern of the others.
    channel.send(b".")


def answer(connection):
    connection.settimeout(10)
    request = connection.makefile("rb")
    while request.readline(8192).strip():
        pass
    environ = os.environ.get
    words = [environ("VERSION", "dev"), os.getpid(), environ("SHEPHERD_SLOT", "-")]
    body = " ".join(map(str, [*words, environ("SHEPHERD_GENERATION", "-")])) + "\n"
    head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall((head + body).encode())


main()
