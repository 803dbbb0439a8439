"""The health check of a container: does the process in it answer on the port that its command line names?

A client that asks for its work (``--pull``) listens nowhere; that its container runs is all that can be seen. One that
listens with TLS is asked with TLS, and shown its own certificate, which is of the authority that it asks others for.

Usage: python -I -S healthy.py DEFAULT_PORT
"""

import os
import re
import socket
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path

TIMEOUT_S = 3


def option(name: str, command: str, environment: Mapping[str, str]) -> str | None:
    """Return the value of an option: the last on the command line, else what its variable says; None for none."""
    named = re.findall(rf"--{name}[ =](\S+)", command)
    return named[-1] if named else environment.get(f"PARITYFL_{name.upper().replace('-', '_')}") or None


def port_of(command: str, default: int) -> int | None:
    """Return the port of a command line, its last --port; None where it listens nowhere."""
    if "--pull" in command.split():
        return None
    return int(option("port", command, {}) or default)


def tls_of(command: str, environment: Mapping[str, str]) -> ssl.SSLContext | None:
    """Return how to call a process that listens with TLS; None for one that does not.

    Raises:
        OSError: its certificate or key cannot be used.
    """
    certificate = option("tls-cert", command, environment)
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # on loopback of this container: itself
    context.load_cert_chain(certificate, option("tls-key", command, environment))
    return context


def answers(port: int, tls: ssl.SSLContext | None = None) -> bool:
    """Return whether GET /health on loopback is answered with 200."""
    try:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as plain:
            connection = plain if tls is None else tls.wrap_socket(plain)
            connection.sendall(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")
            return connection.recv(12)[8:] == b" 200"
    except OSError:
        return False


def is_healthy(command: str, environment: Mapping[str, str], default_port: int) -> bool:
    """Return whether the process with this command line and environment is well."""
    port = port_of(command, default_port)
    try:
        return port is None or answers(port, tls_of(command, environment))
    except OSError:
        return False


if __name__ == "__main__":
    line = Path("/proc/1/cmdline").read_bytes().replace(b"\0", b" ").decode()
    sys.exit(not is_healthy(line, os.environ, int(sys.argv[1])))
