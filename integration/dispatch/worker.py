"""A worker that is given connections and misbehaves in a way you choose.

    worker.py [MODE [WHERE]]     in that slot (`0`) or worker (`w1`) only, and well in the others

Modes: `well`; `silent` tells of no end; `refuses` each connection; `refuses-some`, the first twenty;
`nonsense` says what nobody asked for; `deaf` reads nothing; `closes` its end of the channel and lives
on; `few` has no descriptor left for what it is given; `stays` holds what it is given until its client
has gone; `serial` answers one request after the other; `leaves-a-child` reads nothing, and its child, which reads
nothing either, ends only when it is killed.

It answers `NAME PID SLOT GENERATION`, NAME being the socket where the connection came.
"""

import os
import resource
import signal
import socket
import sys
import threading
import time

mode = sys.argv[1] if len(sys.argv) > 1 else "well"
slot = os.environ.get("SHEPHERD_SLOT", "-")
where = (slot, "w" + os.environ.get("SHEPHERD_WORKER", "-"))
if len(sys.argv) > 2 and sys.argv[2] not in where:
    mode = "well"


def main():
    names = os.environ["LISTEN_FDNAMES"].split(":")
    channel = socket.socket(fileno=3 + names.index("dispatch"))
    if mode == "leaves-a-child" and os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(1000)
    if mode in ("deaf", "closes", "leaves-a-child"):
        if mode == "closes":
            channel.close()
        notify()
        time.sleep(1000)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if mode == "few":
        notify()
        used = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used, used))
    refused = 0
    while True:
        name, descriptors, _flags, _address = socket.recv_fds(channel, 255, 1)
        if not name:
            break
        refuses = mode == "refuses" or (mode == "refuses-some" and refused < 20)
        if refuses:
            refused += 1
            for descriptor in descriptors:
                os.close(descriptor)
            channel.send(b"-")
            continue
        if mode == "nonsense":
            for words in (b"", b"hello\n", b"\0" * 5000):
                channel.send(words)
        channel.send(b"+" if descriptors else b"!")
        if mode == "nonsense":
            channel.send(b"+-!..")
        for descriptor in descriptors:
            work = (serve, (socket.socket(fileno=descriptor), channel, name.decode()))
            if mode == "serial":
                work[0](*work[1])
            else:
                threading.Thread(target=work[0], args=work[1]).start()


def notify():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notification:
        notification.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])


def serve(connection, channel, name):
    try:
        with connection:
            answer(connection, name)
    except OSError:
        pass
    if mode not in ("silent", "nonsense"):
        channel.send(b".")


def answer(connection, name):
    connection.settimeout(60)
    request = connection.makefile("rb")
    first = request.readline().decode()
    while request.readline().strip():
        pass
    if "/slow?ms=" in first:
        time.sleep(int(first.split("=")[1].split(" ")[0]) / 1000)
    generation = os.environ.get("SHEPHERD_GENERATION", "-")
    body = f"{os.environ.get('VERSION', name)} {os.getpid()} {slot} {generation}\n"
    head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall((head + body).encode())
    if mode == "stays" or "/stays" in first:
        connection.recv(1)


main()
