"""The real workbench behind the real application."""

import asyncio

import numpy as np
import pytest

from network import RUN, run, served
from parityfl.client.app import create_app
from parityfl.client.service import DeviceHost
from parityfl.config import Config
from parityfl.training.workbench import Workbench
from parityfl.wire.digests import model_digest
from parityfl.wire.payload import assemble, unpack
from parityfl.wire.schemas import RegistrationReply, TrainReply, TrainRequest


@pytest.mark.parametrize("scale", [1, 1e12])
def test_what_comes_over_http_is_what_the_workbench_learns(scale: float) -> None:
    """Also of a model that has diverged, whose losses nobody can tell."""

    async def main() -> None:
        config = Config(population={"clients": 3, "per_round": 1}, availability={"name": "always"})
        bench = await asyncio.to_thread(Workbench, config)
        weights = bench.initial_weights() * np.float32(scale)
        host = DeviceHost(["h1"])
        host.assign("h1", RegistrationReply(index=1, run_id=RUN, config={}, heartbeat_s=1.0))
        await host.load(config.document(), [1])
        request = TrainRequest(
            run_id=RUN,
            round=4,
            time_s=0,
            seed=config.seed,
            model=config.model.name,
            model_digest=model_digest(weights),
            training=config.training,
            objective=config.objective,
        )
        async with served(create_app(host)) as http:
            response = await http.post("/train", content=bytes(assemble(request, {"model": weights}, bench.layout)))
        host.close()
        reply, vectors = unpack(response.content, TrainReply, bench.layout, finite=False)
        expected, _ = bench.train(4, 1, weights)
        np.testing.assert_array_equal(vectors["model"], expected.delta)
        losses = [reply.train_loss, reply.loss_before, reply.loss_after]
        np.testing.assert_array_equal(losses, [expected.train_loss, expected.loss_before, expected.loss_after])
        assert np.isnan(reply.loss_before) == (scale > 1)
        assert reply.num_samples == bench.num_samples[1]

    run(main())
