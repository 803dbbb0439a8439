"""Workbenches, and crews of worker processes over them."""

import asyncio
from collections.abc import Callable
from typing import Any

from parityfl.config import Config
from parityfl.training.workbench import Workbench
from parityfl.workers.crew import Crew
from parityfl.workers.process_workers import local_crew


def config(**changes: Any) -> Config:
    sections = {
        "seed": 3,
        "method": "fedavg",
        "population": {"clients": 6, "per_round": 4, "samples_per_client": 30},
        "rounds": {"count": 3},
        "availability": {"name": "always"},
    }
    return Config(**{**sections, **changes})


def with_workers(bench: Workbench, workers: int, work: Callable[[Crew], Any]) -> tuple[Any, list[str]]:
    """Run a coroutine over a crew of worker processes; return its result and what was said."""
    said: list[str] = []

    async def main() -> Any:
        with local_crew(bench, workers, said.append) as crew:
            return await work(crew)

    return asyncio.run(main()), said
