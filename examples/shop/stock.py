#!/usr/bin/env python3
"""The shop's agent: the one service that touches the stock, which web and admin ask over a unix socket.

A line with a number changes the stock by that much and is answered by a line with what is left; 0 only
asks. What cannot be sold is answered by "no". Two of them overlap while one is replaced, so the stock
is in a database and not in memory.
"""

import os
import signal
import socket
import socketserver
import sqlite3
import threading

REQUEST_BYTES_MAX = 64  # A number and the end of its line.
EXCHANGE_TIME_MAX = 5  # Seconds that a client may take for its line.
DATABASE = os.environ.get("DATABASE", "stock.db")


def change(by):
    """Changes the stock, unless less than nothing would be left, and returns what is left."""
    with sqlite3.connect(DATABASE, timeout=EXCHANGE_TIME_MAX) as database:
        row = database.execute(
            "UPDATE stock SET apples = apples + ?1 WHERE apples + ?1 >= 0 RETURNING apples", (by,)
        ).fetchone()
    return row and row[0]


class Exchange(socketserver.StreamRequestHandler):
    timeout = EXCHANGE_TIME_MAX

    def handle(self):
        try:
            left = change(int(self.rfile.readline(REQUEST_BYTES_MAX)))
            self.wfile.write(b"no\n" if left is None else f"{left}\n".encode())
        except (ValueError, OSError, sqlite3.Error) as error:
            print(f"stock: {error}", flush=True)


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = False  # The end waits for those that are being answered.

    def __init__(self):
        super().__init__("", Exchange, bind_and_activate=False)
        self.socket.close()
        self.socket = socket.socket(fileno=3)  # LISTEN_FDS: the first socket is descriptor 3.


def notify(message):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.sendto(message, os.environ["NOTIFY_SOCKET"])


with sqlite3.connect(DATABASE, timeout=EXCHANGE_TIME_MAX) as database:
    database.execute("CREATE TABLE IF NOT EXISTS stock (only INTEGER PRIMARY KEY, apples INTEGER)")
    database.execute("INSERT OR IGNORE INTO stock VALUES (1, 12)")
server = Server()
# shutdown() waits for serve_forever(), which runs on this thread, so another one has to call it.
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
notify(b"READY=1\nSTATUS=keeps the stock")
server.serve_forever(poll_interval=0.1)
server.server_close()
