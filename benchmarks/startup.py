"""How long until something happens, and how large is a client that does nothing?

    python benchmarks/startup.py [--quick]

`first round` is from starting `parityfl run` on the digits until its first round stands in rounds.csv. An idle client
is one that is registered with the coordinator and reports, measured over 10,000 of them.
"""

from __future__ import annotations

import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from rows import emit, in_turn, parser, repeats, row, say, timed
from setting import PARITYFL

from parityfl.coordinator.device_registry import DeviceRegistry
from parityfl.wire.schemas import DeviceReport, Registration

PYTHON = [sys.executable, "-c"]
PATIENCE_S = 300.0


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__).parse_args()
    sides = {
        "parityfl --help": timed(lambda: run([*PARITYFL, "--help"])),
        "import parityfl": timed(lambda: run([*PYTHON, "import parityfl"])),
        "first round of a digits run": first_round,
        "python itself": timed(lambda: run([*PYTHON, "pass"])),
        "import torch": timed(lambda: run([*PYTHON, "import torch"])),
    }
    for warm in sides.values():  # file caches
        warm()
    found = in_turn(sides, repeats(arguments))
    emit(row("start-up", "s", side, found[side]) for side in sides)
    torch = float(run([*PYTHON, "import sys, parityfl; print(int('torch' in sys.modules))"]))
    emit([row("modules that `import parityfl` brings", "torch imported", "parityfl", [torch])])
    clients = 1_000 if arguments.quick else 10_000
    sizes = [idle_bytes(clients) for _ in range(repeats(arguments))]
    say(f"an idle client: {sizes[0]:.0f} bytes")
    emit([row("memory of an idle client in the coordinator", "bytes", "parityfl", sizes)])


def run(command: list[str]) -> str:
    """Run a command and return what it printed."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def first_round() -> float:
    """Return the seconds from the start of a run to its first round in the table."""
    with TemporaryDirectory() as folder:
        table, began = Path(folder) / "run" / "rounds.csv", perf_counter()
        command = [*PARITYFL, "run", "--rounds", "1", "--out", str(table.parent)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while not table.exists() or table.read_bytes().count(b"\n") < 2:
                if process.poll() is not None or perf_counter() - began > PATIENCE_S:
                    raise RuntimeError(f"{command} did not finish a round")
                time.sleep(0.005)
            seconds = perf_counter() - began
            process.wait()
    return seconds


def idle_bytes(clients: int) -> float:
    """Return the bytes of a registered client, its label counts and its latest changes of state among them."""
    names = [f"h{index}" for index in range(clients)]
    tracemalloc.start()
    registry = DeviceRegistry(names, False, 10.0, time.monotonic)
    for name in names:
        counts = [60] * 10
        registry.register(Registration(device_id=name, port=5000, num_samples=600, label_counts=counts), "127.0.0.1")
        registry.report(DeviceReport(device_id=name, available=True, latency_s=0.01))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held / clients


if __name__ == "__main__":
    main()
