"""Who sent this: signed requests and answers between coordinator and devices, and the token that admits a device.

Every party signs with an Ed25519 key (RFC 8032) that it makes when its process starts. What vouches for that key is
the registration: a device signs it with a key of its own, its credential, and with the key of its process, and proves
with an HMAC (RFC 2104) that it knows the join token; the coordinator answers in kind. What is signed and proved there
names the signer's key, so that nobody in between can put in another one. Nothing secret is ever sent.

A proof travels in the header `HEADER` as JSON. It covers method, path, counter and the BLAKE3 of the body, so that it
can be checked before the body has come. Counters make requests good for once: the receiver remembers which it has seen
and takes none below those that it remembers, so that nobody needs a clock that is right.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from hmac import compare_digest, digest
from types import MappingProxyType
from typing import Annotated

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field, ValidationError

from parityfl.core.errors import ConfigError, ParityflError
from parityfl.wire.schemas import WORK_ID, WORK_PATH, WORK_UNWANTED, Message, PublicKey, Sha256

HEADER = "Parityfl-Proof"
NONCE_HEADER = "Replay-Nonce"
"""Carries what the next registration must sign, as in RFC 8555."""

LEAST_TOKEN = 16
"""Characters of a token: an HMAC with a short one could be found out by trying."""

WINDOW = 4096
"""How many requests may overtake one another."""

PURPOSE = (WORK_ID, WORK_PATH, WORK_UNWANTED)
"""Headers of an answer that say what its body is for: those that it has are signed with it."""

NO_HEADERS: Mapping[str, str] = MappingProxyType({})

_HIGHEST = 2**53
_MASK = (1 << WINDOW) - 1


Signature = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


class ProofError(ParityflError):
    """A proof is missing or does not hold."""


class Proof(Message):
    """What the header holds."""

    key: PublicKey
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="BLAKE3 of the body.")]
    signature: Annotated[Signature, Field(description="Ed25519 over what is proved.")]
    counter: int = Field(0, ge=0, le=_HIGHEST, description="The sender's count of its requests.")
    nonce: str | None = Field(None, max_length=128, description="The coordinator's nonce, in a registration.")
    token: Sha256 | None = Field(None, description="HMAC-SHA256 with the join token over the same, in a registration.")
    process: Signature | None = Field(None, description="By the key of the process over the same, in a registration.")

    @staticmethod
    def read(header: str | None) -> Proof:
        """Return the proof in a header.

        Raises:
            ProofError: there is none.
        """
        if header is None:
            raise ProofError(f"the header {HEADER} is missing")
        try:
            return Proof.model_validate_json(header)
        except ValidationError:
            raise ProofError(f"the header {HEADER} holds no proof") from None

    def written(self) -> str:
        """Return the header's value."""
        return self.model_dump_json(exclude_none=True)


class KeyPair:
    """An Ed25519 key.

    Attributes:
        public: the public key, in hexadecimal.
    """

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes_raw().hex()

    @staticmethod
    def new() -> KeyPair:
        """Return a new random key."""
        return KeyPair(Ed25519PrivateKey.generate())

    @staticmethod
    def from_hex(text: str) -> KeyPair:
        """Return the key that `hex` wrote.

        Raises:
            ValueError: the text is no such key.
        """
        return KeyPair(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(text.strip())))

    def hex(self) -> str:
        """Return the private key in hexadecimal: to be kept, never to be sent."""
        return self._private.private_bytes_raw().hex()

    def sign(self, text: bytes) -> str:
        """Return the signature of a text, in hexadecimal."""
        return self._private.sign(text).hex()


class Token:
    """A secret that several share; it does not show itself in logs.

    Args:
        secret: at least `LEAST_TOKEN` characters.
        source: where it is from, for messages.

    Raises:
        ConfigError: it is too short.
    """

    def __init__(self, secret: str, source: str = "the token") -> None:
        if len(secret) < LEAST_TOKEN:
            raise ConfigError(
                f"{source} has {len(secret)} characters, at least {LEAST_TOKEN} are needed: `openssl rand -hex 32` "
                "makes a good one"
            )
        self._secret = secret.encode()

    def __repr__(self) -> str:
        return "Token(...)"

    def prove(self, text: bytes) -> str:
        """Return the HMAC of a text."""
        return digest(self._secret, text, "sha256").hex()

    def proves(self, text: bytes, proof: str | None) -> bool:
        """Return whether `proof` is the HMAC of a text; takes the same time whatever is wrong."""
        return compare_digest(self.prove(text), proof or "")

    def matches(self, given: str) -> bool:
        """Return whether `given` is the secret; takes the same time whatever is wrong."""
        return compare_digest(sha256(self._secret).digest(), sha256(given.encode()).digest())


class Window:
    """Which counters of one sender were seen: each is good for once.

    Args:
        floor: the highest counter that is no longer good.
    """

    def __init__(self, floor: int = 0) -> None:
        self._highest = floor
        self._seen = _MASK

    def take(self, counter: int) -> bool:
        """Note a counter; return whether it is new."""
        ahead = counter - self._highest
        if ahead > 0:
            self._seen = (self._seen << min(ahead, WINDOW) | 1) & _MASK
            self._highest = counter
            return True
        if -ahead >= WINDOW or self._seen >> -ahead & 1:
            return False
        self._seen |= 1 << -ahead
        return True


class Party:
    """One end of signed conversations: the key of this process, its count, and the keys that it trusts."""

    def __init__(self) -> None:
        self._pair = KeyPair.new()
        self._windows: dict[str, Window] = {}
        self.counter = 0
        """How many requests it has signed."""

    @property
    def key(self) -> str:
        """The public key of this process."""
        return self._pair.public

    def trust(self, key: str, floor: int = 0) -> None:
        """Take requests signed with `key` from now on, with counters above `floor`; a known key stays as it is."""
        self._windows.setdefault(key, Window(floor))

    def trust_only(self, keys: Iterable[str]) -> None:
        """Forget the keys that are not among `keys`."""
        self._windows = {key: self._windows[key] for key in keys if key in self._windows}

    def sign(self, peer: str, method: str, path: str, body: str) -> Proof:
        """Return the proof of a request to the party with the key `peer`; `body` is the digest of its body."""
        self.counter += 1
        text = _text("request", peer, method, path, str(self.counter), body)
        return Proof(key=self.key, digest=body, signature=self._pair.sign(text), counter=self.counter)

    def check(self, proof: Proof, method: str, path: str) -> None:
        """Require that a request is from a party that is trusted, meant for this one, and new.

        Raises:
            ProofError: it is not.
        """
        window = self._windows.get(proof.key)
        if window is None:
            raise ProofError("the request is signed with a key that is not known here")
        text = _text("request", self.key, method, path, str(proof.counter), proof.digest)
        require_signature(proof.key, text, proof.signature)
        if not window.take(proof.counter):
            raise ProofError(f"request {proof.counter} was there before: it is good for once")

    def vouch(self, text: bytes) -> str:
        """Return the signature of a text by the key of this process."""
        return self._pair.sign(text)

    def answer(self, request: Proof, status: int, body: str, headers: Mapping[str, str] = NO_HEADERS) -> Proof:
        """Return the proof of an answer to `request`, with those of its headers that say what it is for."""
        text = _answer_text(request, status, body, headers)
        return Proof(key=self.key, digest=body, signature=self._pair.sign(text))


def check_answer(
    request: Proof, peer: str, proof: Proof, status: int, body: str, *, headers: Mapping[str, str] = NO_HEADERS
) -> None:
    """Require that an answer to `request` comes from the party with the key `peer`, with this body and purpose.

    Raises:
        ProofError: it does not.
    """
    require_signature(peer, _answer_text(request, status, body, headers), proof.signature)


def sign_registration(device: KeyPair, token: Token | None, party: Party, nonce: str, body: str) -> Proof:
    """Return a device's proof of its registration: its credential and the key in the body vouch for each other."""
    text = _registration(device.public, nonce, party.counter, body)
    return Proof(
        key=device.public,
        digest=body,
        signature=device.sign(text),
        counter=party.counter,
        nonce=nonce,
        token=None if token is None else token.prove(text),
        process=party.vouch(text),
    )


def registration_text(proof: Proof) -> bytes:
    """Return what a registration proves."""
    return _registration(proof.key, proof.nonce or "", proof.counter, proof.digest)


def confirm_registration(coordinator: KeyPair, token: Token, request: Proof, status: int, body: str) -> Proof:
    """Return the coordinator's proof of its answer to a registration, which vouches for the key in the body."""
    text = _confirmation(coordinator.public, request, status, body)
    return Proof(key=coordinator.public, digest=body, signature=coordinator.sign(text), token=token.prove(text))


def check_confirmation(
    request: Proof, proof: Proof, status: int, body: str, *, token: Token | None, known: Iterable[str]
) -> None:
    """Require that the answer to a registration comes from one who knows the join token, or from a known coordinator.

    Raises:
        ProofError: it does not.
    """
    text = _confirmation(proof.key, request, status, body)
    require_signature(proof.key, text, proof.signature)
    if proof.key not in known and (token is None or not token.proves(text, proof.token)):
        raise ProofError("the coordinator does not prove that it knows the join token")


def require_signature(key: str, text: bytes, signature: str) -> None:
    """Require a signature.

    Raises:
        ProofError: it is not that of the key's owner.
    """
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(bytes.fromhex(signature), text)
    except (InvalidSignature, ValueError):
        raise ProofError("the signature does not fit") from None


def require_body(proof: Proof, body: str) -> None:
    """Require that a body has the digest that was signed.

    Raises:
        ProofError: it has another one.
    """
    if not compare_digest(proof.digest, body):
        raise ProofError("the body is not the one that was signed")


def fingerprint(key: str) -> str:
    """Return the hash under which a public key is kept."""
    return sha256(bytes.fromhex(key)).hexdigest()


def _answer_text(request: Proof, status: int, body: str, headers: Mapping[str, str]) -> bytes:
    purpose = [f"{name}: {headers[name]}" for name in PURPOSE if name in headers]
    return _text("answer", request.signature, str(status), body, *purpose)


def _registration(key: str, nonce: str, counter: int, body: str) -> bytes:
    return _text("registration", key, nonce, str(counter), body)


def _confirmation(key: str, request: Proof, status: int, body: str) -> bytes:
    return _text("confirmation", key, request.signature, str(status), body)


def _text(*parts: str) -> bytes:
    """Return the parts as one text, in which no two lists of parts look alike."""
    return json.dumps(["parityfl 2", *parts]).encode()
