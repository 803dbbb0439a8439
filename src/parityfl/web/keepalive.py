"""TCP keep-alive, for connections on which nothing is said for minutes while a device trains.

Firewalls, NAT and VPNs forget a connection that is idle, and tell neither end. Probes keep it in memory there, and tell
of an end that is gone without a word.
"""

import socket

PROBE_S = 30
"""After how long without a word the other end is probed, and how often then."""

PROBES = 4
"""After how many probes without an answer the connection counts as broken."""

_OPTIONS = {"TCP_KEEPIDLE": PROBE_S, "TCP_KEEPALIVE": PROBE_S, "TCP_KEEPINTVL": PROBE_S, "TCP_KEEPCNT": PROBES}
"""By the name in `socket`, of which each platform has some; the second one is how macOS calls the first."""


def keep_alive(sock: socket.socket) -> socket.socket:
    """Have a TCP socket, and on Linux those that it accepts, probe an idle other end; return it."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _OPTIONS.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return sock
