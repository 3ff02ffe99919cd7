"""Ports for servers that tests start in processes of their own."""

from __future__ import annotations

import atexit
import random
import socket


def free_port() -> int:
    """Return a port that is free, and that no other test gets, in whatever process it runs.

    It is none of those that systems give to outgoing connections, and to servers that take any. The UDP
    port of the same number is kept until this process ends, for all others to see.
    """
    while True:
        port = random.randrange(10_000, 32_000)
        mark = socket.socket(type=socket.SOCK_DGRAM)
        try:
            mark.bind(("127.0.0.1", port))
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            mark.close()
        else:
            atexit.register(mark.close)
            return port
