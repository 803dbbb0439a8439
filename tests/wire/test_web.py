import asyncio
import os
import signal
import subprocess
import sys

import pytest

from parityfl.core.errors import FleetError
from parityfl.web.problems import detail_of, problem
from parityfl.web.server import adopt, authority, bind, port_of, run

HELD = (
    "import sys, time; from parityfl.web.leash import hold; hold(); print('up', flush=True); time.sleep(60); "
    "print('too late')"
)
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {HELD!r}], stdin=subprocess.PIPE)
time.sleep(60)
"""


def test_a_leash_ends_a_process_when_its_standard_input_closes() -> None:
    child = subprocess.Popen([sys.executable, "-c", HELD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stdout.readline() == b"up\n"
    child.stdin.close()
    assert child.wait(30) == 130
    child.stdout.close()


def test_a_leash_ends_a_process_whose_parent_was_killed() -> None:
    """Parent and child share the pipe that is read here: it ends when both are gone."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"up\n"
    os.kill(parent.pid, signal.SIGKILL)
    assert parent.stdout.read() == b""
    parent.wait()
    parent.stdout.close()


def test_a_free_port_is_bound_and_known() -> None:
    with bind("127.0.0.1", 0) as listening:
        assert port_of(listening) > 0
        with pytest.raises(FleetError, match=f"port {port_of(listening)} on 127.0.0.1 is in use"):
            bind("127.0.0.1", port_of(listening))


@pytest.mark.parametrize("host", ["203.0.113.1", "no such host"])
def test_an_address_of_another_machine_cannot_be_bound(host: str) -> None:
    with pytest.raises(FleetError, match="use an address of this machine"):
        bind(host, 0)


def test_a_socket_of_the_parent_is_adopted() -> None:
    with bind("127.0.0.1", 0) as listening, adopt(os.dup(listening.fileno())) as adopted:
        assert port_of(adopted) == port_of(listening)
    with open(os.devnull) as file, pytest.raises(FleetError, match="no socket"):
        adopt(file.fileno())


@pytest.mark.parametrize(("host", "written"), [("::1", "[::1]:80"), ("127.0.0.1", "127.0.0.1:80"), ("pi", "pi:80")])
def test_an_address_is_written_as_urls_have_it(host: str, written: str) -> None:
    assert authority(host, 80) == written


def test_the_detail_of_a_problem_is_found_or_whatever_there_is() -> None:
    assert detail_of(bytes(problem(409, "it is away").body)) == "it is away"
    assert detail_of(b"<html>") == "<html>"
    assert detail_of(b"") == "no reason given"


def test_a_main_coroutine_runs_to_its_end() -> None:
    async def main() -> str:
        return type(asyncio.get_running_loop()).__module__

    assert run(main()).split(".")[0] in ("uvloop", "asyncio")
