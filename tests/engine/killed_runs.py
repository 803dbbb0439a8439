"""Runs that are killed at a file operation and resumed: a process of its own, since it forks.

usage: killed_runs.py everywhere|again FOLDER

Prints how many runs were killed.
"""

import os
import signal
import sys
from pathlib import Path

from engine_runs import assert_same_end, make_spec, run

WATCHED = {"open", "os.link", "os.rename", "os.remove", "os.truncate"}


class Killer:
    """An audit hook that kills its process at the n-th file operation below a folder: nothing is cleaned up."""

    def __init__(self, folder, instant):
        self.folder, self.left = str(folder), instant

    def __call__(self, event, arguments):
        if event in WATCHED and str(arguments[0]).startswith(self.folder):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def run_killed(spec, path, instant):
    """Run, or go on, in a child that is killed at its n-th file operation; return whether it came to that."""
    child = os.fork()
    if child == 0:
        sys.addaudithook(Killer(path, instant))
        try:
            run(spec, path, resume=True)
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in {0, -signal.SIGKILL}, f"killed at {instant}, the run ended with {code}"
    return code == -signal.SIGKILL


def everywhere(folder):
    """Kill a run at its first, second, third, ... file operation, and resume each."""
    spec = make_spec(rounds=3)
    whole, instant = run(spec, folder / "whole"), 1
    while run_killed(spec, folder / f"cut{instant}", instant):
        assert_same_end(run(spec, folder / f"cut{instant}", resume=True), whole)
        instant += 1
    return instant - 1


def again(folder):
    """Kill one run and its resumptions, each after a few file operations, until it is done."""
    spec, times = make_spec(), 0
    while run_killed(spec, folder / "cut", 35):
        times += 1
        assert times < 50, "a resumption gets nowhere: it is killed before it has done a round"
    assert_same_end(run(spec, folder / "cut", resume=True), run(spec, folder / "whole"))
    return times


if __name__ == "__main__":
    print({"everywhere": everywhere, "again": again}[sys.argv[1]](Path(sys.argv[2])))
