"""Carries packets between two networks, each 20 ms late: there may be no netem in a kernel.

usage: relay.py   (as root, in a network namespace of its own)

It makes `near` (10.99.0.1) where it is started and `far` (10.99.0.2) in a network of its own, in which
it is from then on: /proc/PID/ns/net leads there. It says `ready`, and ends when its stdin does.
"""

import collections
import ctypes
import fcntl
import os
import select
import struct
import subprocess
import sys
import time

DELAY = 0.020
PACKET_BYTES_MAX = 65536
# Packets on their way in one direction; as many as 20 ms of a gigabit hold. More are lost.
QUEUE_MAX = 2000
TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
CLONE_NEWNET = 0x40000000  # linux/sched.h


def tun(name, address):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    for words in (f"addr add {address}/24 dev {name}", f"link set {name} up txqueuelen {QUEUE_MAX}"):
        subprocess.run(["ip", *words.split()], check=True)
    return fd


def main():
    near = tun("near", "10.99.0.1")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "cannot make a network")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    far = tun("far", "10.99.0.2")
    print("ready", flush=True)

    queues = {near: collections.deque(), far: collections.deque()}
    others = {near: far, far: near}
    poll = select.poll()
    for fd in (0, near, far):
        poll.register(fd, select.POLLIN)
    while True:
        due = min((queue[0][0] for queue in queues.values() if queue), default=None)
        wait = None if due is None else max(0, due - time.monotonic()) * 1000
        ready = {fd for fd, _ in poll.poll(wait)}
        if 0 in ready and not os.read(0, 1):
            return
        now = time.monotonic()
        for fd in ready - {0}:
            for packet in packets(fd):
                if len(queues[fd]) < QUEUE_MAX:
                    queues[fd].append((now + DELAY, packet))
        for fd, queue in queues.items():
            while queue and queue[0][0] <= now:
                os.write(others[fd], queue.popleft()[1])


def packets(fd):
    while True:
        try:
            yield os.read(fd, PACKET_BYTES_MAX)
        except BlockingIOError:
            return


if __name__ == "__main__":
    sys.exit(main())
