"""With what something is measured: the machine, the versions, the commit."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
PARITYFL = [sys.executable, "-m", "parityfl"]
"""The command, of the environment that runs the scripts."""

VERSIONED = ("torch", "numpy", "fastapi", "uvicorn", "httpx", "ray")
VECTORS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")
"""What decides how fast a processor computes here, the best first."""


@cache
def setting() -> str:
    """Return it in one line."""
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{CORES} cores ({_processor()}), {memory:.0f} GB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}; parityfl {_commit()}, {', '.join(map(_versioned, VERSIONED))}"
    )


def _versioned(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"no {name}"


def _processor() -> str:
    """Return the processor's name and the best vector instructions that it has, as far as the system tells."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = re.findall(r"^model name\s*: (.+)$", text, flags=re.MULTILINE)
    flags = set(re.findall(r"^flags\s*: (.+)$", text, flags=re.MULTILINE)[0].split()) if "\nflags" in text else set()
    vectors = next((name for name in VECTORS if name in flags), "")
    return " with ".join(filter(None, [names[0] if names else platform.machine(), vectors]))


def _commit() -> str:
    """Return the version, and the commit where this is a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=7", "HEAD"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return version("parityfl")
    return f"{version('parityfl')} at {commit}"
