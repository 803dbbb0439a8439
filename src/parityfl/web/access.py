"""Who may watch and command: operators. Coordinator and devices prove themselves to each other elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from parityfl.web.problems import problem
from parityfl.web.secrets import OPERATOR_TOKEN
from parityfl.web.server import is_loopback
from parityfl.wire.paths import PROVED
from parityfl.wire.signing import Token

FOR_ALL = ("/health", "/ready")
"""What health checks ask."""

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="parityfl", Basic realm="parityfl"'}


@dataclass(frozen=True)
class Access:
    """The rule.

    Attributes:
        operator: what operators must show, from this machine too; None: being on this machine is enough.
        private: whether reading is for operators only; else only commands are.
        anyone: whether everyone is an operator.
    """

    operator: Token | None = None
    private: bool = False
    anyone: bool = False

    def refusal(self, scope: Scope) -> JSONResponse | None:
        """Return how a request is refused, or None where it is not."""
        headers, method, path = Headers(scope=scope), scope["method"], scope["path"]
        if not _is_same_site(headers, method):
            return problem(403, f"{method} {path} comes from a page of {headers.get('origin')}: only its own may ask")
        if path in FOR_ALL or path[:1] + path[1:].partition("/")[0] in PROVED:
            return None
        if self.operator is not None:
            return None if self.operator.matches(_shown(headers)) else self._ask(method, path)
        reading = method in {"GET", "HEAD", "OPTIONS"}
        if self.anyone or (reading and not self.private) or _is_local(scope, headers):
            return None
        return problem(
            403,
            f"{method} {path} is for operators: ask on this machine itself, or start the coordinator with "
            f"{OPERATOR_TOKEN} and show that token",
        )

    @staticmethod
    def _ask(method: str, path: str) -> JSONResponse:
        detail = f"{method} {path} needs the operator token ({OPERATOR_TOKEN}): as a bearer token, or as a password"
        return problem(401, detail, _CHALLENGE)


class Guarded:
    """Lets an application answer what the rule, as it is at the time, does not refuse."""

    def __init__(self, app: ASGIApp, access: Callable[[], Access]) -> None:
        self.app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on."""
        refusal = self.access().refusal(scope) if scope["type"] == "http" else None
        await (self.app if refusal is None else refusal)(scope, receive, send)


def target_of(request: Request) -> str:
    """Return what a request asks for as it was sent: the path and the query."""
    path, query = request.scope["raw_path"].decode("ascii", "replace"), request.scope["query_string"]
    return f"{path}?{query.decode('ascii', 'replace')}" if query else path


def _shown(headers: Mapping[str, str]) -> str:
    """Return the token that a request shows, as a bearer token or as the password of a browser; empty for none."""
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return rest.strip() if scheme.lower() == "bearer" else ""
    try:
        return base64.b64decode(rest, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def _is_same_site(headers: Mapping[str, str], method: str) -> bool:
    """Return whether a command comes from no page, or from our own: browsers tell where a page is from."""
    origin = headers.get("origin")
    return method in {"GET", "HEAD"} or origin is None or origin.partition("://")[2] == headers.get("host")


def _is_local(scope: Scope, headers: Mapping[str, str]) -> bool:
    """Return whether a request comes from this machine and means it: a page may have been told that it is elsewhere."""
    host = headers.get("host", "")
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return is_loopback(scope["client"][0]) and is_loopback(name)
