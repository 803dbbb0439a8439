"""What is left of memory and cores, read from a folder in the place of the kernel's."""

from pathlib import Path

import pytest

from parityfl.core.machine import available_cores, available_memory

GIB = 2**30
UNLIMITED = 2**63 - 4096
"""How version 1 says that a group has no limit."""


def machine(root: Path, **files: object) -> Path:
    """Write a machine with 8 GiB available; `__` in a name is a folder."""
    for name, content in {"proc__meminfo": f"MemTotal: 9 kB\nMemAvailable: {8 * 2**20} kB", **files}.items():
        file = root / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n")
    return root


def group(folder: str, **files: object) -> dict[str, object]:
    """Return the files of a control group; `_of_` in a name is a dot."""
    return {f"sys__fs__cgroup__{folder}{name.replace('_of_', '.')}": content for name, content in files.items()}


def second(limit: object, use: int, **more: object) -> dict[str, object]:
    return {"memory_of_max": limit, "memory_of_current": use, **more}


def first(limit: int, use: int) -> dict[str, object]:
    return {"memory_of_limit_in_bytes": limit, "memory_of_usage_in_bytes": use}


@pytest.mark.parametrize(
    ("files", "gibibytes"),
    [
        ({}, 8),
        ({"proc__self__cgroup": "0::/"} | group("", **second(4 * GIB, 3 * GIB)), 1),
        ({"proc__self__cgroup": "0::/"} | group("", **second("max", 3 * GIB)), 8),
        ({"proc__self__cgroup": "0::/"} | group("", **second(64 * GIB, 3 * GIB)), 8),
        ({"proc__self__cgroup": "0::/"} | group("", **second(2 * GIB, 3 * GIB)), 0),
        (
            {"proc__self__cgroup": "0::/"}
            | group("", **second(4 * GIB, 3 * GIB, memory_of_stat=f"inactive_file {GIB}")),
            2,
        ),
        (
            {"proc__self__cgroup": "0::/slice/job"}
            | group("slice__", **second(4 * GIB, 3 * GIB))
            | group("slice__job__", **second("max", GIB)),
            1,
        ),
        ({"proc__self__cgroup": "0::/of/the/host"} | group("", **second(4 * GIB, 2 * GIB)), 2),
        (
            {"proc__self__cgroup": "5:cpu,cpuacct:/\n4:memory:/docker/7f\n0::/"}
            | group("memory__docker__7f__", **first(5 * GIB, 2 * GIB))
            | group("memory__", **first(UNLIMITED, 2 * GIB)),
            3,
        ),
        ({"proc__self__cgroup": "4:memory:/docker/7f"} | group("memory__", **first(5 * GIB, GIB)), 4),
        ({"proc__self__cgroup": "5:cpu:/"} | group("memory__", **first(5 * GIB, GIB)), 8),
    ],
    ids=[
        "no groups",
        "less than the machine has",
        "no limit",
        "more than the machine has",
        "beyond the limit",
        "files that nobody looks at",
        "the group around it",
        "a path of the host's",
        "version 1",
        "version 1 in a container",
        "another controller",
    ],
)
def test_memory_is_what_the_machine_has_and_the_groups_leave(
    tmp_path: Path, files: dict[str, object], gibibytes: int
) -> None:
    assert available_memory(machine(tmp_path, **files)) == gibibytes * GIB


def test_without_the_kernels_estimate_memory_is_all_that_there_is(tmp_path: Path) -> None:
    assert available_memory(tmp_path) >= available_memory() > 0


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"proc__self__cgroup": "0::/"} | group("", cpu_of_max="150000 100000"), 2),
        ({"proc__self__cgroup": "0::/"} | group("", cpu_of_max="50000 100000"), 1),
        ({"proc__self__cgroup": "0::/"} | group("", cpu_of_max="max 100000"), 4),
        ({"proc__self__cgroup": "0::/"} | group("", cpu_of_max="900000 100000"), 4),
        (
            {"proc__self__cgroup": "2:cpu,cpuacct:/job"}
            | group("cpu__job__", cpu_of_cfs_quota_us=300000, cpu_of_cfs_period_us=100000)
            | group("cpu__", cpu_of_cfs_quota_us=-1, cpu_of_cfs_period_us=100000),
            3,
        ),
        ({"proc__self__cgroup": "0::/"}, 4),
        ({}, 4),
    ],
    ids=[
        "a core and a half",
        "half a core",
        "no quota",
        "more than there are",
        "version 1",
        "no such file",
        "no groups",
    ],
)
def test_cores_are_those_of_the_affinity_and_of_the_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, object], cores: int
) -> None:
    """Of four cores."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)), raising=False)
    assert available_cores(machine(tmp_path, **files)) == cores
