"""What the kernel does where the machine lacks memory: which process it ends, and whether it has ended one (Linux)."""

import contextlib
from collections.abc import Callable
from pathlib import Path


def let_go_first(process: int | str = "self") -> None:
    """Have the kernel, where memory is short, end this process first, and none that cannot be replaced (Linux).

    By default it ends the largest one. Offering a process of one's own needs no privilege.
    """
    with contextlib.suppress(OSError):  # another system, or it has ended already
        Path(f"/proc/{process}/oom_score_adj").write_text("1000", encoding="ascii")


def oom_kills() -> int:
    """Return how many processes this machine has killed for want of memory; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


class Starvation:
    """Knows for how many deaths the machine's want of memory is the reason: each is told once.

    Args:
        kills: tells how many processes the machine has killed for want of memory.
    """

    def __init__(self, kills: Callable[[], int] = oom_kills) -> None:
        self._kills = kills
        self._told = kills()

    def struck(self) -> bool:
        """Return whether the machine has killed a process for want of memory of which nobody has been told."""
        starved = self._kills() > self._told
        self._told += starved
        return starved
