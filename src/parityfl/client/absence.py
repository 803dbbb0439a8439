"""Why no coordinator answers, as far as the failure tells, what its user can do about it, and when to ask again."""

from __future__ import annotations

import ssl

import httpx
from tenacity import wait_exponential

from parityfl.web.secrets import JOIN_TOKEN

PLAIN_REMEDY = "start it, correct --server, or wait longer with --patience"
"""What to do where nothing but the absence of an answer is known."""

LONGEST_WAIT_S = 2.0
PATIENT = wait_exponential(multiplier=0.1, max=LONGEST_WAIT_S)
"""Waits between attempts to reach the coordinator, in seconds."""

_SPEAKS_TLS = "it may speak TLS: write https:// in --server"
_SPEAKS_NO_TLS = "it does not speak TLS: write http:// in --server"
_OF_TLS = {
    "CERTIFICATE_VERIFY_FAILED": "give the authority of the coordinator's certificate with --tls-ca, or call the host "
    "that this certificate names",
    "WRONG_VERSION_NUMBER": _SPEAKS_NO_TLS,
    "RECORD_LAYER_FAILURE": _SPEAKS_NO_TLS,
}
"""By what OpenSSL calls the failure."""


class UnprovedError(httpx.RemoteProtocolError):
    """What answers does not prove to be the coordinator of these devices."""


def remedy(error: httpx.TransportError, *, tls: bool, certified: bool) -> str:
    """Return what to do about a request that found no coordinator, `PLAIN_REMEDY` where nothing more is known.

    Args:
        error: how the request failed.
        tls: whether it went to an address that begins with https.
        certified: whether it showed a certificate of its own.
    """
    if isinstance(error, UnprovedError):
        return f"check that {JOIN_TOKEN} is the coordinator's and --server its address"
    reason = _ssl_reason(error)
    if reason in _OF_TLS:
        return _OF_TLS[reason]
    cut_off = reason is not None or isinstance(error, httpx.ReadError | httpx.RemoteProtocolError)
    if cut_off and not certified:
        return "it may ask for a certificate: give --tls-cert and --tls-key" if tls else _SPEAKS_TLS
    if isinstance(error, httpx.ReadTimeout):
        return "something listens there and does not answer yet: look at its log, or wait longer with --patience"
    return PLAIN_REMEDY


def _ssl_reason(error: BaseException | None) -> str | None:
    """Return what OpenSSL calls the failure that an error goes back to; None where TLS did not fail."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return None if error is None else error.reason
