"""How vectors travel is agreed with each device: what it cannot read it is not sent, and arrives all the same."""

from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from fakes import FakeDevice, answer, fleet_of, replies, task
from fastapi.responses import Response

from network import LAYOUT, SAMPLES, run, small_config
from parityfl.coordinator.device_registry import DeviceRegistry
from parityfl.coordinator.evaluate import HttpEvaluator
from parityfl.coordinator.packing import Forms
from parityfl.core.rounding import to_bfloat16
from parityfl.core.types import Outcome, Vector
from parityfl.wire.digests import model_digest
from parityfl.wire.payload import Form, assemble, pack
from parityfl.wire.schemas import Registration, TrainReply, TrainRequest

ODD = np.array([1.001, -2.003, 3.0007], dtype=np.float32)
"""Numbers that bfloat16 does not hold."""
ROUNDED = to_bfloat16(ODD)
ZSTD = b"\x28\xb5\x2f\xfd"


def config(**transport: Any) -> Any:
    return small_config(rounds={"clock": "wall", "grace_s": 0, "heartbeat_s": 0.2}, transport=transport)


def reads(registry: DeviceRegistry, name: str, dtypes: list[str], compressions: list[str]) -> None:
    """Register a device again, with what it can read."""
    member = registry.get(name)
    assert member is not None
    own = Registration(
        device_id=name, port=member.port, num_samples=SAMPLES[0], dtypes=dtypes, compressions=compressions
    )
    registry.register(own, "127.0.0.1")


def learned(device: FakeDevice, asked: TrainRequest, form: Form) -> Response:
    """Return `ODD` as what was learned, written in a form."""
    reply = TrainReply(
        device_id=device.name,
        round=asked.round,
        num_samples=SAMPLES[int(device.name[1:])],
        train_loss=0.5,
        loss_before=1.0,
        loss_after=0.5,
        model_digest=asked.model_digest,
        train_s=0.0,
    )
    return Response(bytes(assemble(reply, {"model": pack(ODD, form)}, LAYOUT)))


async def as_asked(device: FakeDevice, asked: TrainRequest, vectors: dict[str, Vector]) -> Response:
    """Answer in the form that was asked for."""
    return learned(device, asked, Form(asked.dtype, asked.compression))


def in_form(form: Form) -> Callable[..., Awaitable[Response]]:
    """Answer in a form, whatever was asked for."""

    async def behave(device: FakeDevice, asked: TrainRequest, vectors: dict[str, Vector]) -> Response:
        return learned(device, asked, form)

    return behave


async def plainly(device: FakeDevice, asked: TrainRequest, vectors: dict[str, Vector]) -> Response:
    """Answer with float32 numbers, not rounded."""
    return answer(device, asked, ODD)


def test_a_device_that_reads_it_is_sent_it_and_answers_so() -> None:
    async def main() -> None:
        async with fleet_of(config(dtype="bf16", compression="zstd"), as_asked) as (fleet, (fake,)):
            reads(fleet.registry, "h0", ["F32", "BF16"], ["zstd"])
            (reply,) = await replies(fleet, task(0, weights=ROUNDED, start=lambda client: ROUNDED))
            assert fake.bodies[0].startswith(ZSTD)
            assert (fake.asked[0].dtype, fake.asked[0].compression) == ("BF16", "zstd")
            np.testing.assert_array_equal(fake.received[0]["model"], ROUNDED)
            assert reply.update is not None
            np.testing.assert_array_equal(reply.update.delta, ROUNDED)

    run(main())


@pytest.mark.parametrize(
    ("dtypes", "compressions", "agreed"),
    [
        (["F32", "BF16"], [], Form("BF16")),
        (["F32"], ["zstd"], Form("F32", "zstd")),
        (["F16", "BF16", "F32"], ["lz4", "zstd"], Form("BF16", "zstd")),
        (["F32", "zstd"], ["BF16", "lz4"], Form()),
    ],
)
def test_of_what_is_wanted_it_is_sent_all_that_it_reads(
    dtypes: list[str], compressions: list[str], agreed: Form
) -> None:
    """Each by itself; what a newer device offers besides is not used."""

    async def main() -> None:
        async with fleet_of(config(dtype="bf16", compression="zstd"), as_asked) as (fleet, (fake,)):
            reads(fleet.registry, "h0", dtypes, compressions)
            (reply,) = await replies(fleet, task(0, weights=ROUNDED, start=lambda client: ROUNDED))
            assert fake.bodies[0].startswith(ZSTD) == (agreed.compression == "zstd")
            assert Form(fake.asked[0].dtype, fake.asked[0].compression) == agreed
            np.testing.assert_array_equal(fake.received[0]["model"], ROUNDED)
            assert reply.update is not None
            np.testing.assert_array_equal(reply.update.delta, ROUNDED)
            measured = await HttpEvaluator(fleet)(1, ODD, ODD)
            assert measured.clients.loss[0] == float(ROUNDED.sum())

    run(main())


def test_a_vector_is_written_once_in_each_form_that_somebody_takes() -> None:
    forms = Forms(ODD)
    assert forms.digest == forms[Form()].digest == model_digest(ODD)
    for form in (Form("BF16"), Form("F32", "zstd")):
        assert forms[form] is forms[form]
        assert forms[form].form == form


def test_one_that_does_not_is_sent_float32_and_its_update_is_rounded_here() -> None:
    async def main() -> None:
        async with fleet_of(config(dtype="bf16", compression="zstd"), plainly) as (fleet, (fake,)):
            reads(fleet.registry, "h0", ["F32"], [])
            (reply,) = await replies(fleet, task(0, weights=ROUNDED, start=lambda client: ROUNDED))
            assert not fake.bodies[0].startswith(ZSTD)
            assert (fake.asked[0].dtype, fake.asked[0].compression) == ("F32", None)
            np.testing.assert_array_equal(fake.received[0]["model"], ROUNDED)
            assert reply.update is not None
            np.testing.assert_array_equal(reply.update.delta, ROUNDED)

    run(main())


@pytest.mark.parametrize("asked", [["F32", "BF16"], ["F32"]])
@pytest.mark.parametrize("came", [Form(), Form("BF16"), Form("F32", "zstd"), Form("BF16", "zstd")])
def test_an_update_is_the_same_in_whichever_form_it_comes(asked: list[str], came: Form) -> None:
    async def main() -> None:
        async with fleet_of(config(dtype="bf16"), in_form(came)) as (fleet, _):
            reads(fleet.registry, "h0", asked, [])
            (reply,) = await replies(fleet, task(0, weights=ROUNDED, start=lambda client: ROUNDED))
            assert reply.update is not None
            np.testing.assert_array_equal(reply.update.delta, ROUNDED)

    run(main())


def test_bfloat16_that_the_run_does_not_have_is_no_update() -> None:
    """It would be another result than that of the local engine, which rounds nothing."""

    async def main() -> None:
        async with fleet_of(config(), in_form(Form("BF16")), in_form(Form("F32", "zstd"))) as (fleet, _):
            rounded, whole = await replies(fleet, task(0, 1, weights=ODD, start=lambda client: ODD))
            assert (rounded.outcome, rounded.update) == (Outcome.INVALID, None)
            assert "transport.dtype" in rounded.reason
            assert whole.update is not None
            np.testing.assert_array_equal(whole.update.delta, ODD)

    run(main())


def test_float32_travels_as_it_is_to_who_could_read_more() -> None:
    async def main() -> None:
        async with fleet_of(config(), as_asked) as (fleet, (fake,)):
            reads(fleet.registry, "h0", ["F32", "BF16"], ["zstd"])
            (reply,) = await replies(fleet, task(0, weights=ODD, start=lambda client: ODD))
            np.testing.assert_array_equal(fake.received[0]["model"], ODD)
            assert reply.update is not None
            np.testing.assert_array_equal(reply.update.delta, ODD)

    run(main())
