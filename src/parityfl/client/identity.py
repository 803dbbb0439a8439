"""Who the devices of a process are to their coordinator, and how they know that it is the one they joined.

A device has a credential: an Ed25519 key that it makes itself, before it first registers, and that never leaves it.
With `--state` it outlives the process; a device that comes back with another one is refused.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
from starlette.requests import Request
from starlette.responses import Response

from parityfl.client.absence import UnprovedError
from parityfl.core.errors import FolderError
from parityfl.files import make_folder
from parityfl.web.access import target_of
from parityfl.web.problems import ProblemError, detail_of
from parityfl.web.secrets import JOIN_TOKEN, write_secret
from parityfl.wire.digests import CONTENT_DIGEST, digest, digest_of
from parityfl.wire.paths import REGISTER
from parityfl.wire.signing import (
    HEADER,
    NONCE_HEADER,
    KeyPair,
    Party,
    Proof,
    ProofError,
    Token,
    check_answer,
    check_confirmation,
    require_body,
    sign_registration,
)

log = logging.getLogger(__name__)

KNOWN = 16
"""How many coordinators a device remembers."""
SAID = 500
"""How many characters are shown of what somebody says who proves nothing."""


@dataclass
class Credential:
    """A device's key, and the keys of the coordinators that it has joined, latest last.

    Attributes:
        pair: the key.
        known: the coordinators.
        path: where both are kept; None: nowhere.
    """

    pair: KeyPair
    known: list[str]
    path: Path | None

    @staticmethod
    def open(path: Path | None) -> Credential:
        """Return what a file holds; a new credential, written there, where there is none.

        Raises:
            FolderError: the file is damaged, or cannot be written.
        """
        if path is None:
            return Credential(KeyPair.new(), [], None)
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            return Credential(KeyPair.from_hex(document["key"]), list(document["coordinators"]), path)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FolderError(f"{path} holds no credential ({error}): restore it, or remove it for a new one") from None
        make_folder(path.parent)
        credential = Credential(KeyPair.new(), [], path)
        credential.save()
        return credential

    def remember(self, coordinator: str) -> None:
        """Know a coordinator again."""
        if coordinator not in self.known:
            self.known = [*self.known, coordinator][-KNOWN:]
            self.save()

    def save(self) -> None:
        """Write it."""
        if self.path is not None:
            write_secret(self.path, json.dumps({"key": self.pair.hex(), "coordinators": self.known}))


class Identity(httpx.Auth):
    """Proves the devices to the coordinator, in every request that an `httpx` client with this `auth` sends.

    An answer that does not prove to be the coordinator's is as good as none, also if it is an error: it raises
    `UnprovedError`. Only a 401 counts as it is, once the devices have joined: it says that the coordinator
    does not know them (any more), and to register again proves both.

    What the coordinator asks of the devices is checked with `identify`, and answered with the headers of `prove`.

    Args:
        token: the join token; None: devices join coordinators that ask for none, and those that they joined before.
        state: the folder that keeps their credentials, made when a coordinator first asks; None: they are made anew.
    """

    def __init__(self, token: Token | None = None, state: Path | None = None) -> None:
        self._token = token
        self._party = Party()
        self._coordinator: str | None = None
        self._nonce: str | None = None
        self._folder = None if state is None else state / "credentials"
        self._credentials: dict[str, Credential] = {}

    @property
    def key(self) -> str:
        """The key with which this process signs."""
        return self._party.key

    @property
    def asks(self) -> bool:
        """Whether the coordinator must prove who it is: where there is a token, or once it has."""
        return self._token is not None or self._coordinator is not None

    def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Sign a request and check the answer."""
        return self._register(request) if request.url.path == REGISTER else self._ask(request)

    def identify(self, request: Request) -> Proof | None:
        """Return the proof of a request of the coordinator, before its body has come; None where none is asked for.

        The request keeps it, for the answer to it: see `prove_problem`.

        Raises:
            ProblemError: it is not the coordinator's.
        """
        if not self.asks:
            return None
        try:
            proof = Proof.read(request.headers.get(HEADER))
            self._party.check(proof, request.method, target_of(request))
        except ProofError as error:
            raise _stranger(error) from None
        request.state.proof = proof
        return proof

    def check_body(self, proof: Proof | None, body: str) -> None:
        """Require that the body with the digest `body` is the one that was signed.

        Raises:
            ProblemError: it is not.
        """
        if proof is not None:
            try:
                require_body(proof, body)
            except ProofError as error:
                raise _stranger(error) from None

    def prove(self, proof: Proof | None, body: str, status: int = 200) -> Mapping[str, str]:
        """Return the headers that prove an answer; `body` is the digest of its body."""
        return {} if proof is None else {HEADER: self._party.answer(proof, status, body).written()}

    def prove_problem(self, request: Request, answer: Response) -> Mapping[str, str]:
        """Return the headers that prove the answer to a request which went wrong after it was identified."""
        proof: Proof | None = getattr(request.state, "proof", None)
        return self.prove(proof, digest_of(answer.body), answer.status_code)

    async def _ask(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        if not self.asks:
            yield request
            return
        coordinator = self._coordinator
        if coordinator is None:
            raise httpx.LocalProtocolError("no coordinator has taken these devices yet", request=request)
        body = await digest(await request.aread(), request.headers.get(CONTENT_DIGEST))
        proof = self._party.sign(coordinator, request.method, request.url.raw_path.decode("ascii"), body)
        request.headers[HEADER] = proof.written()
        response = yield request
        if response.status_code != httpx.codes.UNAUTHORIZED:
            try:
                answer = Proof.read(response.headers.get(HEADER))
                content = await digest(await response.aread(), response.headers.get(CONTENT_DIGEST))
                require_body(answer, content)
                check_answer(proof, coordinator, answer, response.status_code, content, headers=response.headers)
            except ProofError as error:
                raise await _unproved(error, response) from None

    async def _register(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Register with the nonce of the latest answer, and again with that of this one if it was too old.

        A refusal must be proved where a coordinator can: by the join token, or by a key that the device knows.
        """
        content = await request.aread()
        name, body = json.loads(content)["device_id"], await digest(content)
        nonce, self._nonce = self._nonce, None
        proof = None if nonce is None else self._sign(request, name, nonce, body)
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED and NONCE_HEADER in response.headers:
            proof = self._sign(request, name, response.headers[NONCE_HEADER], body)
            response = yield request
        self._nonce = response.headers.get(NONCE_HEADER)
        try:
            if response.is_success:
                await self._believe(name, proof, response)
            elif self.asks or self._has_joined(name):
                await self._check(name, proof, response)
        except ProofError as error:
            raise await _unproved(error, response) from None

    def _sign(self, request: httpx.Request, device_id: str, nonce: str, body: str) -> Proof:
        proof = sign_registration(self._credential(device_id).pair, self._token, self._party, nonce, body)
        request.headers[HEADER] = proof.written()
        return proof

    def _credential(self, device_id: str) -> Credential:
        if device_id not in self._credentials:
            self._credentials[device_id] = Credential.open(self._path(device_id))
        return self._credentials[device_id]

    def _path(self, device_id: str) -> Path | None:
        return None if self._folder is None else self._folder / f"{device_id}.json"

    def _has_joined(self, device_id: str) -> bool:
        """Return whether a coordinator has ever proved itself to the device."""
        path = self._path(device_id)
        kept = device_id in self._credentials or (path is not None and path.exists())
        return kept and bool(self._credential(device_id).known)

    async def _believe(self, device_id: str, proof: Proof | None, response: httpx.Response) -> None:
        """Take a coordinator for the one that admitted the device, once it has proved it."""
        if proof is None:
            if self.asks:
                raise ProofError(f"it serves without credentials: serve with {JOIN_TOKEN}, or start this without")
            return
        coordinator = await self._check(device_id, proof, response)
        session = json.loads(response.content).get("session_key")
        if not isinstance(session, str):
            raise ProofError("it names no key")
        self._credential(device_id).remember(coordinator)
        self._coordinator = session
        self._party.trust(session)
        self._party.trust_only([session])

    async def _check(self, device_id: str, proof: Proof | None, response: httpx.Response) -> str:
        """Require that the answer to a registration is a coordinator's; return the coordinator's key.

        That it does not know the device, nobody can prove: a proof of the join token may have been cut out on the way.
        """
        if proof is None or response.status_code == httpx.codes.UNAUTHORIZED:
            raise ProofError("nothing proves that it is from a coordinator of these devices")
        confirmation = Proof.read(response.headers.get(HEADER))
        content = await digest(await response.aread())
        require_body(confirmation, content)
        known = self._credential(device_id).known
        check_confirmation(proof, confirmation, response.status_code, content, token=self._token, known=known)
        return confirmation.key


def _stranger(error: ProofError) -> ProblemError:
    detail = f"this device trains for the coordinator that it has joined, and nobody else: {error}"
    return ProblemError(401, detail, {"WWW-Authenticate": "Parityfl"})


async def _unproved(error: ProofError, response: httpx.Response) -> UnprovedError:
    """Return what an answer that proves nothing counts as; what it says, on one line, is for the user to judge."""
    reason = f"what answers does not prove to be the coordinator that these devices trust: {error}"
    if not response.is_success:
        said = " ".join(detail_of(await response.aread()).split())[:SAID]
        reason = f"{reason}; it answers {response.status_code}: {said}"
    log.warning("%s: %s", response.request.url, reason)
    return UnprovedError(reason, request=response.request)
