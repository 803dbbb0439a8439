"""Digests tell bodies and models apart, however many cores compute them."""

import numpy as np
import pytest
from blake3 import blake3

from parityfl.wire.digests import SHARED_BYTES, digest_of, model_digest


@pytest.mark.parametrize("size", [0, 1, SHARED_BYTES - 1, SHARED_BYTES, SHARED_BYTES + 1025])
def test_a_body_in_pieces_has_the_digest_of_the_whole(size: int) -> None:
    body = np.random.default_rng(0).bytes(size)
    assert digest_of([body[:3], memoryview(body)[3:]]) == blake3(body).hexdigest()


def test_a_models_digest_is_of_the_little_endian_bytes() -> None:
    """1.0 is 0x3f800000 and -2.0 is 0xc0000000, lowest byte first."""
    expected = blake3(bytes.fromhex("0000803f000000c0")).hexdigest()
    assert model_digest(np.array([1, -2], dtype=np.float32)) == expected
    assert model_digest(np.array([1, 0, -2, 0], dtype=np.float32)[::2]) == expected
    assert model_digest(np.array([1, -2], dtype=">f4")) == expected
