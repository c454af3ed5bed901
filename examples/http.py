#!/usr/bin/env python3
"""An HTTP/1.1 worker that can be replaced at any moment without a failed request.

It takes the sockets it is given (LISTEN_FDS), says when it is ready (NOTIFY_SOCKET), and on
SIGTERM stops as a lame duck: it accepts no more, answers what it accepted, and says goodbye to
kept-alive clients in an answer instead of hanging up on them.

    shepherd run -n 4 -p 8000 -- ./http.py     four of them, sharing one socket
    systemd-socket-activate -l 8000 ./http.py  one, started by the first connection
    ./http.py [ADDRESS:PORT]                   one, with a socket of its own (127.0.0.1:8000)

Threads, not asyncio: asyncio accepts many connections ahead of the code that serves them, and
loses those when it stops. A thread that was given a connection serves it to its end.
"""

import os
import re
import select
import signal
import socket
import sys
import threading
import time

HEAD_BYTES_MAX = 8 * 1024  # A longer request head is answered with 400.
EXCHANGE_TIME_MAX = 10  # Seconds for a client to finish a head it began, or to take an answer.
IDLE_TIME_MAX = 60  # Seconds that a connection may be silent.
# Seconds that a stopping worker waits for the first request of a connection. Clients do not
# retry a first request, so a connection that we accepted is not closed before it had its chance.
FIRST_REQUEST_TIME_MAX = 5
GOODBYE_TIME_MAX = 0.5  # Seconds to listen, after our last answer, for a client to close.
BAD_REQUEST = ("400 Bad Request", "", True)

stopping = False
connections = set()
connections_changed = threading.Condition()


def main():
    stop_signal, stop_signal_sender = os.pipe()
    lame_duck_over, lame_duck = os.pipe()  # Its end of file reaches all connections at once.

    def on_signal(_number, _frame):
        global stopping
        if stopping:
            os._exit(1)
        stopping = True
        os.write(stop_signal_sender, b"!")

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)

    listeners = given_sockets() or [own_socket()]
    notify(f"READY=1\nSTATUS=serving on {len(listeners)} socket(s)")
    while stop_signal not in wait(None, stop_signal, *listeners):
        for listener in listeners:
            connection = accept(listener)
            if connection:
                with connections_changed:
                    connections.add(connection)
                threading.Thread(target=serve, args=(connection, lame_duck_over)).start()

    notify("STOPPING=1\nSTATUS=finishing what was accepted")
    # This closes our copies only: other workers go on accepting from the same sockets. A
    # shutdown() would take the sockets from them as well.
    for listener in listeners:
        listener.close()
    with connections_changed:
        lame_duck_time = int(os.environ.get("LAME_DUCK_MS", "1000")) / 1000
        connections_changed.wait_for(lambda: not connections, lame_duck_time)
        os.close(lame_duck)
        connections_changed.wait_for(lambda: not connections)


def given_sockets():
    """The sockets that were handed to this process: descriptors from 3 on."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    sockets = [socket.socket(fileno=3 + n) for n in range(count)]
    for given in sockets:
        given.set_inheritable(False)
    return sockets


def own_socket():
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8000"
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=4096)


def notify(message):
    """Tells the service manager, if there is one. That it does not hear us must not stop us."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            # A leading @ stands for the zero byte of an abstract address.
            address = "\0" + address[1:] if address[0] == "@" else address
            manager.sendto(message.encode(), address)
    except OSError as error:
        print(f"http.py: cannot notify: {error}", file=sys.stderr)


def accept(listener):
    """The next connection, unless another worker was faster."""
    try:
        # Being non-blocking is a property of the socket, not of our copy of it, so any worker
        # can change it for all. Hence it is set each time.
        listener.setblocking(False)
        connection, _ = listener.accept()
        connection.settimeout(EXCHANGE_TIME_MAX)
        return connection
    except BlockingIOError:
        return None
    except OSError as error:
        # Out of descriptors, perhaps: the connection stays in the queue, so do not spin.
        print(f"http.py: cannot accept: {error}", file=sys.stderr)
        time.sleep(0.05)
        return None


def wait(seconds, *files):
    """Waits until some of the files can be read or have ended, and returns those."""
    poll = select.poll()
    by_descriptor = {f if isinstance(f, int) else f.fileno(): f for f in files}
    for descriptor in by_descriptor:
        poll.register(descriptor, select.POLLIN)
    return [by_descriptor[d] for d, _ in poll.poll(None if seconds is None else seconds * 1000)]


def serve(connection, lame_duck_over):
    """Answers the requests of one connection, one after the other, and closes it."""
    try:
        answer_requests(connection, lame_duck_over)
        # Send our end of file first and let the client close: a bare close() with unread bytes
        # would reset the connection, and the client could lose an answer it has not read yet.
        connection.shutdown(socket.SHUT_WR)
        give_up = time.monotonic() + GOODBYE_TIME_MAX
        while read_more(connection, give_up):
            pass
    except OSError:
        pass  # The client has gone.
    finally:
        connection.close()
        with connections_changed:
            connections.discard(connection)
            connections_changed.notify()


def answer_requests(connection, lame_duck_over):
    received = b""
    is_first = True
    while received or request_begins(connection, lame_duck_over, is_first):
        is_first = False
        head, received = read_head(connection, received)
        if head is None:
            return
        status, body, closes = answer(head)
        closes = closes or stopping
        connection.sendall(
            f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
            f"Connection: {'close' if closes else 'keep-alive'}\r\n\r\n{body}".encode("latin-1")
        )
        if closes:
            return


def request_begins(connection, lame_duck_over, is_first):
    """Waits for the first byte of a request; false if the connection is to be closed instead."""
    readable = wait(IDLE_TIME_MAX, connection, lame_duck_over)
    if is_first and readable == [lame_duck_over]:
        readable = wait(FIRST_REQUEST_TIME_MAX, connection)
    return connection in readable


def read_head(connection, received):
    """A request's head (None: the client has gone or takes too long), and what follows it."""
    give_up = time.monotonic() + EXCHANGE_TIME_MAX
    while b"\r\n\r\n" not in received and len(received) <= HEAD_BYTES_MAX:
        more = read_more(connection, give_up)
        if not more:
            return None, b""
        received += more
    head, _, rest = received.partition(b"\r\n\r\n")
    return head, rest


def read_more(connection, give_up):
    """What comes next; nothing at the end of the stream, and at `give_up`."""
    if wait(max(0, give_up - time.monotonic()), connection):
        return connection.recv(2048)
    return b""


def answer(head):
    """Status and body of the answer, and whether the connection ends with it."""
    request, *lines = head.decode("latin-1").split("\r\n")
    request = request.split(" ")
    if len(head) > HEAD_BYTES_MAX or len(request) != 3:
        return BAD_REQUEST
    method, target, version = request
    if version not in ("HTTP/1.0", "HTTP/1.1") or not all(":" in line for line in lines):
        return BAD_REQUEST
    closes = version == "HTTP/1.0"
    for line in lines:
        name, _, value = line.lower().partition(":")
        if name == "connection":
            closes |= "close" in (option.strip() for option in value.split(","))
        # Bodies are not read, so what follows one could not be told from it.
        closes |= name == "content-length" and value.strip() != "0"
        closes |= name == "transfer-encoding"

    path, _, query = target.partition("?")
    if method != "GET" or path not in ("/", "/slow"):
        return "404 Not Found", "", closes
    if path == "/slow":
        ms = re.fullmatch("ms=([0-9]{1,9})", query)
        if not ms:
            return BAD_REQUEST
        time.sleep(min(int(ms[1]), 60_000) / 1000)
    version = os.environ.get("VERSION", "dev")
    slot = os.environ.get("SHEPHERD_SLOT", "-")
    generation = os.environ.get("SHEPHERD_GENERATION", "-")
    return "200 OK", f"{version} {os.getpid()} {slot} {generation}\n", closes


if __name__ == "__main__":
    main()
