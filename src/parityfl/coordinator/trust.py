"""Whom a coordinator trusts, as its operator has decided."""

from __future__ import annotations

import logging
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

from parityfl.coordinator.enrolment import Enrolment
from parityfl.coordinator.gate import Gate, TokenGate
from parityfl.core.errors import ConfigError
from parityfl.web.access import Access
from parityfl.web.secrets import JOIN_TOKEN
from parityfl.web.server import is_loopback
from parityfl.web.tls import Tls
from parityfl.wire.signing import Token

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trust:
    """The decision.

    Attributes:
        join_token: what admits a device; None: no device proves anything, nor does the coordinator.
        operator_token: what operators show; None: being on this machine is enough.
        anyone: whether, where there is no join token, the coordinator may be reached from elsewhere, and everyone is
            an operator who shows the operators' token where there is one.
        tls: how to encrypt.
    """

    join_token: Token | None = None
    operator_token: Token | None = None
    anyone: bool = False
    tls: Tls = field(default_factory=Tls)

    def check(self, listening: socket.socket) -> None:
        """Warn of an address at which strangers may come in, unless devices must prove who they are.

        Raises:
            ConfigError: that they may was not said.
        """
        host = str(listening.getsockname()[0])
        if self.join_token is not None or is_loopback(host):
            return
        if not self.anyone:
            listening.close()
            raise ConfigError(
                f"--host {host} without credentials would let in whoever reaches it: set a join token ({JOIN_TOKEN} or "
                "--join-token-file, the same for the devices), or say --allow-anyone"
            )
        log.warning(
            "listening on %s without credentials, as --allow-anyone says: whoever reaches this port can join, read the "
            "model and stop the run",
            host,
        )

    def gate(self, run: Path | None) -> Gate:
        """Return who devices speak to; which of them have joined is kept in the run folder."""
        if self.join_token is None:
            return Gate()
        assert run is not None, "credentials are kept in the run folder"
        return TokenGate(self.join_token, Enrolment(run), time.monotonic)

    def access(self) -> Access:
        """Return the rule for operators."""
        private = self.join_token is not None
        return Access(self.operator_token, private=private, anyone=self.anyone and not private)
