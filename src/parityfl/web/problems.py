"""Errors as RFC 9457 problem details, whatever went wrong."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from parityfl.core.errors import FolderError, ParityflError, PartError, PayloadError, UnfinishedError
from parityfl.wire.schemas import Problem

log = logging.getLogger(__name__)

PROBLEM_JSON = "application/problem+json"

Handler = Callable[[Request, Exception], Awaitable[JSONResponse]]
"""Answers an error."""


class ProblemError(Exception):
    """A request that is answered with a problem: the status, and one line with the value and the remedy."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers


_READ_BYTES = 2**16
"""How much of somebody's error is looked at: whoever sent it may have sent as much as a model."""


class TooLargeError(PayloadError):
    """A body has more bytes than are taken."""


_STATUS: Mapping[type[ParityflError], int] = {
    TooLargeError: 413,
    FolderError: 500,
    PartError: 500,
    UnfinishedError: 507,
}
"""How errors are answered, the first that fits; others with 422. What is wrong here is no fault of who asks."""


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> JSONResponse:
    """Return the response that carries a problem."""
    body = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, **more)
    return JSONResponse(body.model_dump(), status, headers, media_type=PROBLEM_JSON)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of the problems that an endpoint answers with."""
    content = {PROBLEM_JSON: {"schema": Problem.model_json_schema()}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def detail_of(body: bytes | bytearray | memoryview) -> str:
    """Return the detail of a problem that someone answered with, or the beginning of whatever it is, as one line.

    What is not printable is a space: a terminal that shows a log does what control characters say.
    """
    read = bytes(body[:_READ_BYTES])
    try:
        detail = Problem.model_validate_json(read).detail
    except ValueError:
        detail = read[:200].decode(errors="replace") or "no reason given"
    return "".join(character if character.isprintable() else " " for character in detail)


def install(app: FastAPI, describe: Callable[[Request, JSONResponse], Mapping[str, str]] | None = None) -> None:
    """Make `app` answer every error with a problem.

    Args:
        app: the application.
        describe: returns headers for such an answer, beside its own; None: there are no others.
    """

    def described(answer: Handler) -> Handler:
        async def handle(request: Request, error: Exception) -> JSONResponse:
            response = await answer(request, error)
            response.headers.update({} if describe is None else describe(request, response))
            return response

        return handle

    app.add_exception_handler(ProblemError, described(_on_problem))
    app.add_exception_handler(HTTPException, described(_on_http_exception))
    app.add_exception_handler(RequestValidationError, described(_on_invalid_request))
    app.add_exception_handler(ParityflError, described(_on_parityfl_error))
    app.add_exception_handler(ClientDisconnect, described(_on_disconnect))
    app.add_exception_handler(Exception, described(_on_anything_else))


async def _on_problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ProblemError)
    return problem(error.status, error.detail, error.headers)


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, f"{request.method} {request.url.path}: {error.detail}", error.headers)


async def _on_invalid_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = [{"field": ".".join(map(str, e["loc"])), "reason": e["msg"]} for e in error.errors()]
    first = faults[0] if faults else {"field": "body", "reason": "invalid"}
    return problem(422, f"{first['field']}: {first['reason']}; /docs shows what is taken", errors=faults)


async def _on_parityfl_error(request: Request, error: Exception) -> JSONResponse:
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 422)
    if status >= 500:
        log.error("answered %d: %s", status, error)
    return problem(status, str(error))


async def _on_disconnect(request: Request, error: Exception) -> JSONResponse:
    """Answer nobody: the sender hung up in the middle of its body, as devices do every day."""
    return problem(400, "the body did not come to its end")


async def _on_anything_else(request: Request, error: Exception) -> JSONResponse:
    return problem(500, f"{type(error).__name__} while answering; the log of this process has the details")
