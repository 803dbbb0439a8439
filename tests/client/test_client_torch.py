"""The real workbench behind the real application."""

import asyncio

import numpy as np

from network import RUN, run, served
from parityfl.client.app import create_app
from parityfl.client.service import DeviceHost
from parityfl.config import Config
from parityfl.training.workbench import Workbench
from parityfl.wire.digests import model_digest
from parityfl.wire.payload import assemble, unpack
from parityfl.wire.schemas import RegistrationReply, TrainReply, TrainRequest


def test_what_comes_over_http_is_what_the_workbench_learns() -> None:
    async def main() -> None:
        config = Config(population={"clients": 3, "per_round": 1}, availability={"name": "always"})
        bench = await asyncio.to_thread(Workbench, config)
        weights = bench.initial_weights()
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
        reply, vectors = unpack(response.content, TrainReply, bench.layout)
        expected, _ = bench.train(4, 1, weights)
        np.testing.assert_array_equal(vectors["model"], expected.delta)
        assert (reply.train_loss, reply.loss_after) == (expected.train_loss, expected.loss_after)
        assert reply.num_samples == bench.num_samples[1]

    run(main())
