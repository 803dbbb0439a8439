"""TLS for whoever listens and whoever calls: one certificate a process, one authority for the fleet."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parityfl.core.errors import ConfigError


@dataclass(frozen=True)
class Tls:
    """How a process encrypts; without any of these it does not.

    Attributes:
        cert: its certificate, PEM: what it serves with, and shows where it is asked for one.
        key: the private key of that.
        authority: the certificates, PEM, of the authority that others must be certified by; None: those of the system
            when calling, and nobody is asked when listening.
    """

    cert: Path | None = None
    key: Path | None = None
    authority: Path | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            given, other = ("--tls-cert", "--tls-key") if self.key is None else ("--tls-key", "--tls-cert")
            raise ConfigError(f"{given} needs {other}: a certificate and its private key belong together")
        if (self.cert, self.authority) != (None, None):
            self.calling()

    @property
    def serves(self) -> bool:
        """Whether it listens with TLS."""
        return self.cert is not None

    @property
    def scheme(self) -> str:
        """How it is called."""
        return "https" if self.serves else "http"

    def listening(self) -> dict[str, Any]:
        """Return the options for uvicorn: with an authority, whoever connects must show a certificate of it."""
        if not self.serves:
            return {}
        own = {"ssl_certfile": self.cert, "ssl_keyfile": self.key}
        asked = {"ssl_ca_certs": self.authority, "ssl_cert_reqs": ssl.CERT_REQUIRED}
        return own if self.authority is None else {**own, **asked}

    def calling(self, *, check_name: bool = True) -> ssl.SSLContext:
        """Return how to call others.

        Args:
            check_name: whether the other's certificate must name the host that is called.

        Raises:
            ConfigError: a file cannot be read or is no certificate or key.
        """
        with _usable(f"--tls-ca {self.authority}", "the authority's certificates"):
            context = ssl.create_default_context(cafile=self.authority)
        if self.cert is not None:
            with _usable(f"--tls-cert {self.cert} --tls-key {self.key}", "a certificate and its private key"):
                context.load_cert_chain(self.cert, self.key)
        context.check_hostname = check_name
        return context


@contextmanager
def _usable(given: str, wanted: str) -> Iterator[None]:
    """Turn what is wrong with files into one line."""
    try:
        yield
    except ssl.SSLError as error:
        reason = (error.reason or "no PEM").replace("_", " ").lower()
        raise ConfigError(f"{given} cannot be used ({reason}): give {wanted}, as PEM") from None
    except OSError as error:
        raise ConfigError(f"{given} cannot be read ({error.strerror or error}): give {wanted}, as PEM") from None
