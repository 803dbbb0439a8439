"""What a process may use of its machine: memory and cores, as its container leaves them.

The kernel's own figures are those of the whole machine. A container's limits are those of its control groups (Linux
cgroups, version 2 or 1): a process is in one, and so in all those around that.
"""

import os
from math import ceil, inf
from pathlib import Path

ROOT = Path("/")
"""Where the kernel's files are: below proc and sys/fs/cgroup."""

_MEMORY = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""For version 2 and for version 1: the files with a group's limit and use, and the line of memory.stat that says how
much of the use is pages of files not read for long, which the kernel takes back first."""


def available_memory(root: Path = ROOT) -> int:
    """Return the bytes that this process can get without swapping.

    That is the smaller of what the machine has (the kernel's estimate, or else all physical memory) and what the
    process's control groups leave.
    """
    estimate = _entry(root / "proc/meminfo", "MemAvailable:")
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if estimate is None else 1024 * estimate
    return int(min([machine, *map(_memory_left, _groups(root, "memory"))]))


def available_cores(root: Path = ROOT) -> int:
    """Return how many cores this process may keep busy, at least 1.

    That is the smaller of its affinity and of the quotas of its control groups, rounded up to whole cores.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(min([affinity, *map(_core_quota, _groups(root, "cpu"))]))


def _memory_left(group: Path) -> float:
    """Return the bytes that a control group leaves; infinite where it has no limit."""
    for limit, use, unused in _MEMORY:
        most, used = _text(group / limit), _text(group / use)
        if most.isdecimal() and used.isdecimal():
            return max(0, int(most) - int(used) + (_entry(group / "memory.stat", unused) or 0))
    return inf


def _core_quota(group: Path) -> float:
    """Return how many cores a control group may keep busy; infinite where it has no quota."""
    known = _text(group / "cpu.max").split()
    quota, period = known or [_text(group / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
    return ceil(int(quota) / int(period)) if quota.isdecimal() and period.isdecimal() else inf


def _groups(root: Path, controller: str) -> list[Path]:
    """Return the folders of the control groups that this process is in, as far as they are to be seen here.

    A line of proc/self/cgroup is ``number:controllers:path``; version 2's names no controllers. In a container the path
    may be the host's, which is not there; what is at the top then is the container's own group.
    """
    found: list[Path] = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / (controller if controllers else "")
        own = top / path.lstrip("/")
        found += [own, *own.parents[: len(own.parts) - len(top.parts)]]
    return found


def _entry(file: Path, name: str) -> int | None:
    """Return the number that follows a name at the beginning of a line; None where there is none."""
    lines = (line.split() for line in _text(file).splitlines())
    return next((int(words[1]) for words in lines if words[:1] == [name]), None)


def _text(file: Path) -> str:
    """Return what is in a file without the blanks around it; '' where it is not there."""
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape").strip()
    except OSError:
        return ""
