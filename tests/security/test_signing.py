from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parityfl.core.errors import ConfigError
from parityfl.wire.schemas import WORK_ID, WORK_PATH
from parityfl.wire.signing import (
    WINDOW,
    KeyPair,
    Party,
    Proof,
    ProofError,
    Token,
    Window,
    check_answer,
    check_confirmation,
    confirm_registration,
    fingerprint,
    registration_text,
    require_body,
    require_signature,
    sign_registration,
)

BODY = sha256(b"body").hexdigest()
OTHER = sha256(b"another").hexdigest()
TOKEN = Token("correct horse battery")


def acquainted() -> tuple[Party, Party]:
    """A sender that the receiver trusts."""
    sender, receiver = Party(), Party()
    receiver.trust(sender.key)
    return sender, receiver


def test_a_request_is_taken_once() -> None:
    sender, receiver = acquainted()
    proof = sender.sign(receiver.key, "POST", "/train", BODY)
    receiver.check(Proof.read(proof.written()), "POST", "/train")
    with pytest.raises(ProofError, match="good for once"):
        receiver.check(proof, "POST", "/train")


@pytest.mark.parametrize(("method", "path"), [("POST", "/evaluate"), ("PUT", "/train")])
def test_a_request_is_good_for_its_own_method_and_path(method: str, path: str) -> None:
    sender, receiver = acquainted()
    with pytest.raises(ProofError, match="does not fit"):
        receiver.check(sender.sign(receiver.key, "POST", "/train", BODY), method, path)


def test_a_request_is_good_for_one_receiver_and_from_one_sender() -> None:
    sender, receiver = acquainted()
    bystander, stranger = Party(), Party()
    bystander.trust(sender.key)
    with pytest.raises(ProofError, match="does not fit"):
        bystander.check(sender.sign(receiver.key, "POST", "/train", BODY), "POST", "/train")
    with pytest.raises(ProofError, match="not known"):
        receiver.check(stranger.sign(receiver.key, "POST", "/train", BODY), "POST", "/train")
    forged = stranger.sign(receiver.key, "POST", "/train", BODY).model_copy(update={"key": sender.key})
    with pytest.raises(ProofError, match="does not fit"):
        receiver.check(forged, "POST", "/train")


@pytest.mark.parametrize("change", [{"digest": OTHER}, {"counter": 9}, {"signature": "0" * 128}])
def test_an_altered_proof_does_not_hold(change: dict[str, object]) -> None:
    sender, receiver = acquainted()
    with pytest.raises(ProofError, match="does not fit"):
        receiver.check(sender.sign(receiver.key, "POST", "/train", BODY).model_copy(update=change), "POST", "/train")


def test_a_failed_check_does_not_use_the_counter_up() -> None:
    sender, receiver = acquainted()
    proof = sender.sign(receiver.key, "POST", "/train", BODY)
    with pytest.raises(ProofError):
        receiver.check(proof.model_copy(update={"signature": "0" * 128}), "POST", "/train")
    receiver.check(proof, "POST", "/train")


def test_a_body_is_the_one_that_was_signed() -> None:
    proof = Party().sign("00" * 32, "POST", "/train", BODY)
    require_body(proof, BODY)
    with pytest.raises(ProofError, match="body"):
        require_body(proof, OTHER)


def test_an_answer_belongs_to_its_request() -> None:
    sender, receiver = acquainted()
    asked, another = (sender.sign(receiver.key, "POST", "/train", BODY) for _ in range(2))
    answer = receiver.answer(asked, 200, OTHER)
    check_answer(asked, receiver.key, answer, 200, OTHER)
    for request, key, status, body in (
        (another, receiver.key, 200, OTHER),
        (asked, sender.key, 200, OTHER),
        (asked, receiver.key, 500, OTHER),
        (asked, receiver.key, 200, BODY),
    ):
        with pytest.raises(ProofError):
            check_answer(request, key, answer, status, body)


def test_an_answer_says_what_it_is_for() -> None:
    """Its headers that name a piece of work are signed: neither changed, nor added, nor taken away."""
    sender, receiver = acquainted()
    asked = sender.sign(receiver.key, "POST", "/work", BODY)
    work = {WORK_ID: "a", WORK_PATH: "/train"}
    answer = receiver.answer(asked, 200, OTHER, work)
    check_answer(asked, receiver.key, answer, 200, OTHER, headers=work | {"Date": "today"})
    changed: list[dict[str, str]] = [work | {WORK_PATH: "/evaluate"}, work | {WORK_ID: "b"}, {WORK_ID: "a"}, {}]
    for headers in changed:
        with pytest.raises(ProofError):
            check_answer(asked, receiver.key, answer, 200, OTHER, headers=headers)
    nothing = receiver.answer(asked, 204, BODY)
    with pytest.raises(ProofError):
        check_answer(asked, receiver.key, nothing, 204, BODY, headers=work)


def test_a_forgotten_key_is_not_trusted_and_comes_back_above_its_floor() -> None:
    sender, receiver = acquainted()
    old = sender.sign(receiver.key, "POST", "/train", BODY)
    receiver.trust_only([])
    with pytest.raises(ProofError, match="not known"):
        receiver.check(old, "POST", "/train")
    receiver.trust(sender.key, sender.counter)
    with pytest.raises(ProofError, match="good for once"):
        receiver.check(old, "POST", "/train")
    receiver.check(sender.sign(receiver.key, "POST", "/train", BODY), "POST", "/train")


def test_trusting_a_key_again_forgets_nothing() -> None:
    sender, receiver = acquainted()
    proof = sender.sign(receiver.key, "POST", "/train", BODY)
    receiver.check(proof, "POST", "/train")
    receiver.trust(sender.key)
    with pytest.raises(ProofError, match="good for once"):
        receiver.check(proof, "POST", "/train")


def test_a_registration_is_proved_by_credential_and_token() -> None:
    device, party = KeyPair.new(), Party()
    proof = sign_registration(device, TOKEN, party, "nonce", BODY)
    text = registration_text(proof)
    require_signature(device.public, text, proof.signature)
    assert TOKEN.proves(text, proof.token)
    assert not Token("another token of some length").proves(text, proof.token)
    assert not TOKEN.proves(registration_text(proof.model_copy(update={"nonce": "another"})), proof.token)
    assert not TOKEN.proves(text, None)
    require_signature(party.key, text, proof.process or "")


def test_a_proof_of_the_token_is_for_one_key() -> None:
    """Who is in between puts in a key of its own and signs with it: what the token proved is not of that key."""
    device, between = KeyPair.new(), KeyPair.new()
    proof = sign_registration(device, TOKEN, Party(), "nonce", BODY)
    swapped = proof.model_copy(update={"key": between.public})
    text = registration_text(swapped)
    require_signature(between.public, text, between.sign(text))
    assert not TOKEN.proves(text, swapped.token)
    genuine = confirm_registration(KeyPair.new(), TOKEN, proof, 200, OTHER)
    theirs = confirm_registration(between, Token("a guess of some length"), proof, 200, OTHER)
    forged = theirs.model_copy(update={"token": genuine.token})
    with pytest.raises(ProofError, match="join token"):
        check_confirmation(proof, forged, 200, OTHER, token=TOKEN, known=[])


def test_a_confirmation_needs_the_token_or_a_known_key() -> None:
    coordinator, stranger = KeyPair.new(), KeyPair.new()
    request = sign_registration(KeyPair.new(), TOKEN, Party(), "nonce", BODY)
    genuine = confirm_registration(coordinator, TOKEN, request, 200, OTHER)
    check_confirmation(request, genuine, 200, OTHER, token=TOKEN, known=[])
    check_confirmation(request, genuine, 200, OTHER, token=None, known=[coordinator.public])
    with pytest.raises(ProofError, match="join token"):
        check_confirmation(request, genuine, 200, OTHER, token=None, known=[])
    guessed = confirm_registration(stranger, Token("a guess of some length"), request, 200, OTHER)
    with pytest.raises(ProofError, match="join token"):
        check_confirmation(request, guessed, 200, OTHER, token=TOKEN, known=[coordinator.public])
    for status, body in ((200, BODY), (410, OTHER)):
        with pytest.raises(ProofError, match="does not fit"):
            check_confirmation(request, genuine, status, body, token=TOKEN, known=[])


@given(st.lists(st.integers(0, 3 * WINDOW), max_size=60), st.integers(0, WINDOW))
def test_a_window_takes_no_counter_twice_and_all_recent_ones(counters: list[int], floor: int) -> None:
    """A counter is new unless it was seen, is at or below the floor, or WINDOW or more behind the highest."""
    window, seen, highest = Window(floor), set(range(floor + 1)), floor
    for counter in counters:
        expected = counter not in seen and counter > highest - WINDOW
        assert window.take(counter) == expected
        seen.add(counter)
        highest = max(highest, counter)


def test_a_giant_leap_costs_nothing() -> None:
    window = Window()
    assert window.take(2**53)
    assert not window.take(1)


@given(st.text(max_size=300))
def test_a_header_of_anything_is_refused(header: str) -> None:
    with pytest.raises(ProofError):
        Proof.read(header)


def test_a_missing_header_is_named() -> None:
    with pytest.raises(ProofError, match="Parityfl-Proof is missing"):
        Proof.read(None)


def test_a_key_of_no_point_is_refused() -> None:
    with pytest.raises(ProofError, match="does not fit"):
        require_signature("ff" * 32, b"", "00" * 64)


def test_keys_are_kept_as_text_and_shown_as_hashes() -> None:
    pair = KeyPair.new()
    assert KeyPair.from_hex(pair.hex()).public == pair.public
    assert fingerprint(pair.public) == sha256(bytes.fromhex(pair.public)).hexdigest()
    for damaged in ("", "zz", "00" * 31):
        with pytest.raises(ValueError, match=r".*"):
            KeyPair.from_hex(damaged)


def test_a_token_is_long_enough_and_keeps_to_itself() -> None:
    with pytest.raises(ConfigError, match="16 are needed"):
        Token("short")
    assert "battery" not in f"{TOKEN!r} {TOKEN}"
    assert TOKEN.matches("correct horse battery")
    assert not TOKEN.matches("wrong")
