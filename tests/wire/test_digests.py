"""Digests tell bodies and models apart, however many cores compute them."""

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from parityfl.wire.digests import (
    SHARED_BYTES,
    Hashed,
    Hasher,
    content_digest,
    digest_of,
    digest_of_parts,
    hashed,
    is_as_told,
    known_digest,
    lengths_in,
    model_digest,
)


def as_it_comes(pieces: list[bytes], lengths: list[int] | None = None) -> Hashed:
    hasher = Hasher(lengths or ())
    for piece in pieces:
        hasher.update(piece)
    return hasher.hashed()


@pytest.mark.parametrize("size", [0, 1, SHARED_BYTES - 1, SHARED_BYTES, SHARED_BYTES + 1025])
def test_a_body_has_the_same_digest_on_one_core_and_on_all(size: int) -> None:
    body = np.random.default_rng(0).bytes(size)
    assert digest_of(body) == as_it_comes([body]).digest == blake3(body).hexdigest()


def test_a_models_digest_is_of_the_little_endian_bytes() -> None:
    """1.0 is 0x3f800000 and -2.0 is 0xc0000000, lowest byte first."""
    expected = blake3(bytes.fromhex("0000803f000000c0")).hexdigest()
    assert model_digest(np.array([1, -2], dtype=np.float32)) == expected
    assert model_digest(np.array([1, 0, -2, 0], dtype=np.float32)[::2]) == expected
    assert model_digest(np.array([1, -2], dtype=">f4")) == expected


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=4), st.integers(1, 50))
def test_a_body_in_parts_has_the_digest_of_their_digests(parts: list[bytes], step: int) -> None:
    """However it is cut on its way, and whether its parts were hashed before or while it comes."""
    body, lengths = b"".join(parts), [len(part) for part in parts]
    pieces = [body[start : start + step] for start in range(0, len(body), step)]
    known = digest_of_parts([(len(part), digest_of(part)) for part in parts])
    assert as_it_comes(pieces, lengths) == hashed(body, lengths)
    assert digest_of(body, lengths) == known
    assert is_as_told(content_digest(known, lengths), known, lengths)
    assert lengths_in(content_digest(known, lengths)) == tuple(lengths)


def test_a_model_that_is_a_part_of_a_body_is_not_hashed_again() -> None:
    """One that lies elsewhere, or was hashed together with something else, is none."""
    body = bytearray(range(32))
    vector = np.frombuffer(body, np.float32)[2:6]
    parts = hashed(body, (8, 16, 8)).parts
    assert known_digest(vector, body, parts) == model_digest(vector)
    assert known_digest(vector.copy(), body, parts) is None
    for lengths in [(), (32,), (8, 24), (4, 16, 12), (8, 15, 9)]:
        assert known_digest(vector, body, hashed(body, lengths).parts) is None


@given(st.binary(max_size=40), st.binary(max_size=40), st.lists(st.integers(0, 90), min_size=1, max_size=4))
def test_no_two_bodies_have_one_digest(body: bytes, other: bytes, lengths: list[int]) -> None:
    if body != other:
        assert digest_of(body, lengths) != digest_of(other, lengths)
    assert digest_of(body, lengths) != digest_of(body)


def test_a_digest_of_parts_is_that_of_no_body_that_is_written_like_them() -> None:
    written = (1).to_bytes(8, "little") + bytes.fromhex(digest_of(b"a"))
    assert digest_of(b"a", (1,)) not in {digest_of(written), digest_of(b"a")}


@pytest.mark.parametrize(
    "header",
    [
        "blake3-parts=:AAAA:",
        'blake3-parts=:AAAA:;lengths=""',
        'blake3-parts=:AAAA:;lengths="1 2 3 4 5 6 7 8 9"',
        'blake3-parts=:AAAA:;lengths="1 -2"',
        'blake3-parts=:AAAA:;lengths="1111111111111111"',
        "blake3=:AAAA:",
    ],
)
def test_a_header_that_is_half_understood_agrees_with_nothing(header: str) -> None:
    assert lengths_in(header) == ()
    assert is_as_told(header, digest_of(b"body"), ()) is False


@pytest.mark.parametrize("lengths", [(), (1, 3)])
def test_a_digest_is_found_among_others(lengths: tuple[int, ...]) -> None:
    known = content_digest(digest_of(b"body", lengths), lengths)
    for header in (f"sha-256=:AAAA:, {known}", f"{known},md5=:AAAA:", f"md5=:AAAA: ,{known} , sha-512=:AA==:"):
        assert lengths_in(header) == lengths
        assert is_as_told(header, digest_of(b"body", lengths), lengths)
        assert is_as_told(header, digest_of(b"other", lengths), lengths) is False


@pytest.mark.parametrize("header", [None, "", "sha-256=:AAAA:", "md5=:AAAA:, sha-256=:blake3=:"])
def test_a_header_of_another_digest_says_nothing(header: str | None) -> None:
    assert is_as_told(header, digest_of(b"body"), ()) is None
