"""Who speaks to the coordinator: devices prove who they are, and the coordinator proves itself to them.

`Gate` asks nobody for anything: a coordinator without credentials. `TokenGate` admits devices that know the join
token or have joined before, takes no request but theirs, and signs all that it says to them.
"""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, takewhile

from fastapi.responses import Response
from pydantic import BaseModel

from parityfl.coordinator.enrolment import Enrolment, RefusedError
from parityfl.web.problems import ProblemError
from parityfl.web.secrets import JOIN_TOKEN
from parityfl.wire.digests import digest
from parityfl.wire.schemas import Registration, RegistrationReply
from parityfl.wire.signing import (
    HEADER,
    NO_HEADERS,
    NONCE_HEADER,
    Party,
    Proof,
    ProofError,
    Token,
    check_answer,
    confirm_registration,
    registration_text,
    require_body,
    require_signature,
)

log = logging.getLogger(__name__)

NONCE_LIFE_S = 60.0
"""How long a nonce is good for, by this process's own clock."""


@dataclass(frozen=True)
class Asked:
    """A signed request to a device.

    Attributes:
        device_id: whom it asks.
        proof: what goes with it.
        key: of the process that is asked, and signs the answer.
    """

    device_id: str
    proof: Proof
    key: str


class Gate:
    """What the coordinator asks of those who speak, and how it speaks to them: this one takes everyone at their word.

    A gate that asks for proof gives a `Proof` and an `Asked` wherever this one gives None.
    """

    async def introduce(self, header: str | None, body: bytes) -> Proof | None:
        """Return the proof of a registration: it is new, and whoever holds the credential in it has signed it.

        Raises:
            ProblemError: it is not.
        """
        return None

    def admit(self, registration: Registration, proof: Proof | None) -> None:
        """Require that a registration may be taken.

        Raises:
            ProblemError: it may not.
        """

    def check(self, registration: Registration, proof: Proof | None) -> None:
        """Require that a device that was admitted still is.

        Raises:
            ProblemError: it is not any more.
        """

    def enter(self, registration: Registration, proof: Proof | None) -> None:
        """Remember a device whose registration was taken."""

    async def confirm(self, proof: Proof | None, reply: RegistrationReply) -> Response:
        """Return the answer to a registration."""
        return _json(reply)

    def sign_refusal(self, proof: Proof | None, status: int, body: str) -> Mapping[str, str]:
        """Return the headers that prove the refusal of a registration; `body` is the digest of its body."""
        return NO_HEADERS

    def identify(self, header: str | None, method: str, target: str) -> Proof | None:
        """Return the proof of a request of a process whose devices were admitted; its body need not have come.

        Raises:
            ProblemError: it is from nobody such.
        """
        return None

    def check_body(self, proof: Proof | None, body: str) -> None:
        """Require that the body with the digest `body` is the one that was proved.

        Raises:
            ProblemError: it is not.
        """

    def speaks_for(self, proof: Proof | None, device_id: str) -> bool:
        """Return whether who sent a request may speak for a device."""
        return True

    async def reply(self, proof: Proof | None, message: BaseModel) -> Response:
        """Return the answer to a request."""
        return _json(message)

    def sign_answer(
        self, proof: Proof | None, status: int, body: str, headers: Mapping[str, str] = NO_HEADERS
    ) -> Mapping[str, str]:
        """Return the headers that prove an answer to a request; `body` is the digest of its body."""
        return NO_HEADERS

    def sign(self, device_id: str, method: str, target: str, body: str) -> Asked | None:
        """Return a request to a device, signed; `body` is the digest of its body."""
        return None

    def check_answer(self, asked: Asked | None, header: str | None, status: int, body: str) -> None:
        """Require that an answer comes from the process that was asked.

        Raises:
            ProofError: it does not.
            RefusedError: the device is revoked.
        """

    def revoked(self) -> Collection[str]:
        """Return the devices that may no longer take part."""
        return ()


class TokenGate(Gate):
    """Admits who knows the token, and from then on whoever holds the credential that came with it.

    Args:
        token: the join token.
        enrolment: which devices have joined.
        clock: monotonic seconds.
    """

    def __init__(self, token: Token, enrolment: Enrolment, clock: Callable[[], float]) -> None:
        self._token = token
        self._enrolment = enrolment
        enrolment.devices()  # a damaged file is told at the start; later ones leave everyone as they were
        self._identity = enrolment.coordinator_key()
        self._party = Party()
        self._nonces = Nonces(clock)
        self._keys: dict[str, str] = {}

    async def introduce(self, header: str | None, body: bytes) -> Proof | None:
        """Check body, nonce and signature."""
        proof = self._read(header)
        try:
            require_body(proof, await digest(body))
            if proof.nonce is None or not self._nonces.is_fresh(proof.nonce):
                raise ProofError(f"the registration needs the nonce of the latest {NONCE_HEADER} header")
            require_signature(proof.key, registration_text(proof), proof.signature)
        except ProofError as error:
            raise self._stranger(error) from None
        return proof

    def admit(self, registration: Registration, proof: Proof | None) -> None:
        """Check credential and token, and use the nonce up."""
        assert proof is not None, "it was introduced"
        name = registration.device_id
        with _as_problems(name):
            known = self._enrolment.check(name, proof.key)
        if not known and not self._token.proves(registration_text(proof), proof.token):
            log.warning("%s was refused: it does not know the join token", name)
            raise ProblemError(401, f"{name} does not prove that it knows the join token: give it that ({JOIN_TOKEN})")
        if registration.process_key is None:
            raise ProblemError(422, "process_key: the key with which the device's process signs is missing")
        try:
            require_signature(registration.process_key, registration_text(proof), proof.process or "")
        except ProofError as error:
            raise ProblemError(
                422, f"process_key: the owner of this key has not signed the registration: {error}"
            ) from None
        assert proof.nonce is not None, "it was introduced"
        self._nonces.use_up(proof.nonce)

    def check(self, registration: Registration, proof: Proof | None) -> None:
        """Ask the enrolment again: it may have changed while the address was looked up."""
        assert proof is not None, "it was admitted"
        with _as_problems(registration.device_id):
            self._enrolment.check(registration.device_id, proof.key)

    def enter(self, registration: Registration, proof: Proof | None) -> None:
        """Enrol a device that is new, and trust its process."""
        assert proof is not None, "it was admitted"
        assert registration.process_key is not None, "it was admitted"
        name, key = registration.device_id, registration.process_key
        with _as_problems(name):
            if not self._enrolment.check(name, proof.key):
                self._enrolment.enrol(name, proof.key)
        self._party.trust(key, proof.counter)
        replaced = self._keys.get(name, key) != key
        self._keys[name] = key
        if replaced:
            self._party.trust_only(set(self._keys.values()))

    async def confirm(self, proof: Proof | None, reply: RegistrationReply) -> Response:
        """Answer with a proof that this is the coordinator."""
        assert proof is not None, "it was admitted"
        body = reply.model_copy(update={"session_key": self._party.key}).model_dump_json().encode()
        signed = confirm_registration(self._identity, self._token, proof, 200, await digest(body))
        headers = {HEADER: signed.written(), NONCE_HEADER: self._nonces.issue()}
        return Response(body, media_type="application/json", headers=headers)

    def sign_refusal(self, proof: Proof | None, status: int, body: str) -> Mapping[str, str]:
        """Prove, as for one that is taken, that this is the coordinator: the device need not have joined it."""
        assert proof is not None, "it was introduced"
        return {HEADER: confirm_registration(self._identity, self._token, proof, status, body).written()}

    def identify(self, header: str | None, method: str, target: str) -> Proof | None:
        """Require the signature of a process whose devices have registered."""
        proof = self._read(header)
        try:
            self._party.check(proof, method, target)
        except ProofError as error:
            raise self._stranger(error) from None
        return proof

    def check_body(self, proof: Proof | None, body: str) -> None:
        """Compare digests."""
        assert proof is not None, "it was identified"
        try:
            require_body(proof, body)
        except ProofError as error:
            raise self._stranger(error) from None

    def speaks_for(self, proof: Proof | None, device_id: str) -> bool:
        """Return whether a device registered from the process that signed, and is not revoked."""
        same = proof is not None and self._keys.get(device_id) == proof.key
        return same and not self._enrolment.is_revoked(device_id)

    async def reply(self, proof: Proof | None, message: BaseModel) -> Response:
        """Answer, signed."""
        body = message.model_dump_json().encode()
        return Response(body, media_type="application/json", headers=self.sign_answer(proof, 200, await digest(body)))

    def sign_answer(
        self, proof: Proof | None, status: int, body: str, headers: Mapping[str, str] = NO_HEADERS
    ) -> Mapping[str, str]:
        """Sign an answer."""
        assert proof is not None, "it was identified"
        return {HEADER: self._party.answer(proof, status, body, headers).written()}

    def sign(self, device_id: str, method: str, target: str, body: str) -> Asked | None:
        """Sign a request for the process that the device registered from."""
        key = self._keys[device_id]
        return Asked(device_id, self._party.sign(key, method, target, body), key)

    def check_answer(self, asked: Asked | None, header: str | None, status: int, body: str) -> None:
        """Require the signature of the process that was asked, unless the device was revoked meanwhile."""
        assert asked is not None, "requests are signed"
        if self._enrolment.is_revoked(asked.device_id):
            raise RefusedError(f"{asked.device_id} is revoked")
        proof = Proof.read(header)
        require_body(proof, body)
        check_answer(asked.proof, asked.key, proof, status, body)

    def revoked(self) -> Collection[str]:
        """Ask the enrolment, which may have been changed from outside."""
        return self._enrolment.revoked()

    def _read(self, header: str | None) -> Proof:
        try:
            return Proof.read(header)
        except ProofError as error:
            raise self._stranger(error) from None

    def _stranger(self, error: ProofError) -> ProblemError:
        headers = {"WWW-Authenticate": "Parityfl", NONCE_HEADER: self._nonces.issue()}
        return ProblemError(401, f"this coordinator takes devices that prove who they are: {error}", headers)


class Nonces:
    """Numbers that are good for one registration each; nothing is kept of those that are never used.

    A nonce carries the time at which this process issued it and an HMAC that shows that it did.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._used: dict[str, float] = {}

    def issue(self) -> str:
        """Return a new one."""
        text = f"{self._clock():.3f}.{secrets.token_hex(8)}"
        return f"{text}.{self._mark(text)}"

    def is_fresh(self, nonce: str) -> bool:
        """Return whether it was issued here, lately, and was not used up."""
        text, _, mark = nonce.rpartition(".")
        if not hmac.compare_digest(self._mark(text).encode(), mark.encode(errors="replace")) or nonce in self._used:
            return False
        return self._clock() - float(text.partition(".")[0]) <= NONCE_LIFE_S

    def use_up(self, nonce: str) -> None:
        """Take it no more; forget those that are too old anyway."""
        now = self._clock()
        self._used[nonce] = now
        for old in takewhile(lambda old: now - self._used[old] > NONCE_LIFE_S, list(islice(self._used, 2))):
            del self._used[old]

    def _mark(self, text: str) -> str:
        return hmac.digest(self._key, text.encode(errors="replace"), "sha256").hex()


@contextmanager
def _as_problems(device_id: str) -> Iterator[None]:
    """Answer a device that is refused."""
    try:
        yield
    except RefusedError as error:
        log.warning("%s was refused: %s", device_id, error)
        raise ProblemError(403, str(error)) from None


def _json(message: BaseModel) -> Response:
    return Response(message.model_dump_json(), media_type="application/json")
