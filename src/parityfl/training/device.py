"""Where torch computes, and how: the one place that chooses the device and sets torch's switches."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.utils.deterministic

from parityfl.core.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """Return the device called ``auto`` (a GPU where there is one), ``cpu`` or ``cuda``.

    Raises:
        ConfigError: ``cuda`` is asked for and there is none, or the name is another.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"engine.device = {name!r}: use auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("engine.device = 'cuda': torch sees no GPU here; use cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def is_slow_in_bf16(device: torch.device) -> bool:
    """Return whether bfloat16 is known to be slower than float32: x86 before AVX-512 takes several times as long."""
    return device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2"


def make_deterministic() -> None:
    """Have torch use algorithms that give the same bits in every run, or fail where it has none."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS on a GPU refuses
    torch.set_deterministic_debug_mode("error")  # the better known switch also imports torch's compiler, for a second
    # filling costs time, and nothing reads such memory
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def use_one_thread() -> None:
    """Have the calling thread compute on one thread, whoever started it.

    The number is kept per thread (OpenMP) and in part per process (MKL), so every thread that computes must ask for
    itself. One thread fixes the order of reductions, and two fall to a quarter of their speed beside a busy neighbour.
    """
    torch.set_num_threads(1)


@contextmanager
def torch_seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's own generators inside the block and leave them as they were outside.

    Args:
        seed: an integer in [0, 2**63).
        device: where the random numbers are drawn, beside the CPU.
    """
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(seed)
        if gpus:
            torch.cuda.manual_seed(seed)
        yield
