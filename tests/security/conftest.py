"""The tests of security use the small run of the client's tests and the devices of the coordinator's."""

import sys
from pathlib import Path

HERE = Path(__file__).parent

sys.path[:0] = [*(str(HERE.parent / name) for name in ("client", "coordinator", "engine")), str(HERE)]
