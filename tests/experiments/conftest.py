"""The small configuration of workbenches is also that of whole runs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "workers"))
