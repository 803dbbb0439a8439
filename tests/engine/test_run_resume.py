"""A run that is stopped at any instant and resumed ends as one that was not."""

import asyncio
import errno
import fcntl
import json
import os
import resource
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engine_runs import (
    ROUNDS,
    InterruptedRunError,
    QuadraticFleet,
    Raising,
    assert_holds,
    assert_same_end,
    checkpoints,
    contents,
    hashes,
    interrupt,
    make_evaluator,
    make_spec,
    make_world,
    run,
)

from parityfl.core.aggregation import aggregator
from parityfl.core.errors import FolderError, UnfinishedError
from parityfl.core.optimizers import Adam, Momentum
from parityfl.core.selection import selector
from parityfl.core.selection.lnu import LeastNormalisedUtility
from parityfl.core.types import Outcome
from parityfl.engine.folder import RunFolder

METHODS = {
    "lnu-mifa": {},
    "lnu-deterministic-mifa": {"select": LeastNormalisedUtility(mode="deterministic", parity="utility")},
    "fedavg-adam": {"select": "uniform", "aggregate": "fedavg", "optimizer": Adam()},
    "fedavg-momentum-control": {"aggregate": "fedavg", "optimizer": Momentum(), "uses_control": True},
    "local-gain": {"functional": "local_gain", "evaluate_every": 2},
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("after", range(1, ROUNDS + 1))
def test_stopped_after_a_round(tmp_path, name, after):
    spec = make_spec(**METHODS[name])
    interrupt(spec, tmp_path / "cut", after)
    assert_holds(tmp_path / "cut") if after == 3 else None
    assert_same_end(run(spec, tmp_path / "cut", resume=True), run(spec, tmp_path / "whole"))


def stop_after_every_round(spec, path):
    for after in range(1, spec.rounds + 1):
        interrupt(spec, path, after, resume=True)
    return run(spec, path, resume=True)


@pytest.mark.parametrize("name", selector.names())
def test_every_selector_goes_through_the_journal(tmp_path, name):
    spec = make_spec(make_world(), select=name, aggregate="fedavg", rounds=9)
    whole = run(spec, tmp_path / "whole")
    assert_same_end(stop_after_every_round(spec, tmp_path / "cut"), whole)


@pytest.mark.parametrize("name", aggregator.names())
def test_every_aggregator_goes_through_the_journal(tmp_path, name):
    spec = make_spec(select="uniform", aggregate=name, rounds=9)
    assert_same_end(stop_after_every_round(spec, tmp_path / "cut"), run(spec, tmp_path / "whole"))


@pytest.mark.parametrize("place", ["train", "evaluate"])
def test_stopped_in_the_middle_of_a_round(tmp_path, place):
    spec = make_spec()

    def raise_in(round, *_):
        if round == 3:
            raise InterruptedRunError

    fleet = QuadraticFleet(spec, during=raise_in if place == "train" else None)
    evaluate = make_evaluator(spec, during=raise_in if place == "evaluate" else None)
    with pytest.raises(InterruptedRunError):
        run(spec, tmp_path / "cut", fleet=fleet, evaluate=evaluate)
    summary = RunFolder(tmp_path / "cut").summary()
    assert (summary["status"], summary["rounds_completed"]) == ("interrupted", 2)
    assert_holds(tmp_path / "cut")
    assert_same_end(run(spec, tmp_path / "cut", resume=True), run(spec, tmp_path / "whole"))


def test_stopped_before_the_first_round(tmp_path):
    spec = make_spec()

    def refuse(_):
        raise InterruptedRunError

    with pytest.raises(InterruptedRunError):
        run(spec, tmp_path / "cut", evaluate=make_evaluator(spec, during=refuse))
    assert_same_end(run(spec, tmp_path / "cut", resume=True), run(spec, tmp_path / "whole"))


def test_stopped_by_cancellation(tmp_path):
    """What Ctrl-C and SIGTERM do: the task is cancelled while it waits."""
    spec = make_spec()

    async def cancel():
        folder = RunFolder(tmp_path / "cut")
        folder.prepare(spec.document, resume=False)
        task = asyncio.current_task()

        def stop(round, _):
            if round == 3:
                loop.call_soon_threadsafe(task.cancel)

        from parityfl.engine.loop import run_rounds

        loop = asyncio.get_running_loop()
        await run_rounds(spec, QuadraticFleet(spec, during=stop), make_evaluator(spec), folder)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel())
    assert RunFolder(tmp_path / "cut").summary()["status"] == "interrupted"
    assert_same_end(run(spec, tmp_path / "cut", resume=True), run(spec, tmp_path / "whole"))


def test_stopped_as_asked(tmp_path):
    spec, stop = make_spec(), asyncio.Event()

    def ask(round, _):
        if round == 2:
            stop.set()

    with pytest.raises(UnfinishedError, match="stopped after round 2 of 6"):
        run(spec, tmp_path / "cut", fleet=QuadraticFleet(spec, during=ask), stop=stop)
    assert_holds(tmp_path / "cut")
    assert_same_end(run(spec, tmp_path / "cut", resume=True), run(spec, tmp_path / "whole"))


def killed(what, folder):
    """Run `killed_runs.py` and return how many runs were killed."""
    script = Path(__file__).parent / "killed_runs.py"
    done = subprocess.run([sys.executable, str(script), what, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_killed_at_every_file_operation(tmp_path):
    """kill -9 before each open, rename and removal of a run, and a resume from each."""
    assert killed("everywhere", tmp_path) > 40


def test_killed_again_and_again(tmp_path):
    assert killed("again", tmp_path) > 3
    assert_holds(tmp_path / "cut")


def flip(file, position):
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


def truncate(file, position):
    file.write_bytes(file.read_bytes()[:position])


@pytest.mark.parametrize("position", [3, 40, -1, -200])
@pytest.mark.parametrize("damage", [flip, truncate])
def test_a_damaged_checkpoint_costs_one_round(tmp_path, damage, position):
    spec = make_spec()
    interrupt(spec, tmp_path / "cut", 4)
    damage(checkpoints(tmp_path / "cut")[-1], position)
    seen = []
    fleet = QuadraticFleet(spec, during=lambda number, _: seen.append(number))
    assert_same_end(run(spec, tmp_path / "cut", resume=True, fleet=fleet), run(spec, tmp_path / "whole"))
    assert min(seen) == 4


def test_a_missing_checkpoint_costs_one_round(tmp_path):
    spec = make_spec()
    interrupt(spec, tmp_path / "cut", 4)
    checkpoints(tmp_path / "cut")[-1].unlink()
    assert_same_end(run(spec, tmp_path / "cut", resume=True), run(spec, tmp_path / "whole"))


@pytest.mark.parametrize("damage", [flip, truncate])
def test_damaged_rows_of_the_last_round_cost_one_round(tmp_path, damage):
    spec = make_spec()
    interrupt(spec, tmp_path / "cut", 4)
    newest = list((tmp_path / "cut" / "journal" / "rows").glob("*/4.safetensors"))
    assert newest
    for file in newest:
        damage(file, -4)
    assert_same_end(run(spec, tmp_path / "cut", resume=True), run(spec, tmp_path / "whole"))


def test_two_damaged_checkpoints_are_an_error_that_names_both(tmp_path):
    spec = make_spec()
    interrupt(spec, tmp_path / "cut", 4)
    for file in checkpoints(tmp_path / "cut"):
        flip(file, -1)
    before = contents(tmp_path / "cut")
    with pytest.raises(FolderError, match=r"no usable checkpoint: round-00000004.*; round-00000003") as caught:
        run(spec, tmp_path / "cut", resume=True)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path / "cut") == before


def test_a_lost_journal_starts_the_run_afresh(tmp_path):
    spec = make_spec()
    interrupt(spec, tmp_path / "cut", 4)
    for file in checkpoints(tmp_path / "cut"):
        file.unlink()
    assert_same_end(run(spec, tmp_path / "cut", resume=True), run(spec, tmp_path / "whole"))


@pytest.mark.parametrize("table", ["rounds.csv", "clients.csv"])
@pytest.mark.parametrize("damage", [flip, truncate, lambda file, _: file.unlink()])
def test_a_table_that_has_changed_is_noticed(tmp_path, table, damage):
    spec = make_spec()
    interrupt(spec, tmp_path / "cut", 4)
    damage(tmp_path / "cut" / table, 150)
    with pytest.raises(FolderError, match=f"{table} is (not what it was|missing)"):
        run(spec, tmp_path / "cut", resume=True)


@pytest.mark.parametrize("table", ["rounds.csv", "clients.csv"])
def test_a_torn_tail_of_a_table_is_cut(tmp_path, table):
    spec = make_spec()
    interrupt(spec, tmp_path / "cut", 4)
    with (tmp_path / "cut" / table).open("a") as handle:
        handle.write("5,h0,1,0,0,,0.")
    assert_same_end(run(spec, tmp_path / "cut", resume=True), run(spec, tmp_path / "whole"))
    assert_holds(tmp_path / "cut")


def test_a_lost_last_line_comes_back_from_the_journal(tmp_path):
    spec = make_spec()
    interrupt(spec, tmp_path / "cut", 4)
    for table in ("rounds.csv", "clients.csv"):
        file = tmp_path / "cut" / table
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    assert_same_end(run(spec, tmp_path / "cut", resume=True), run(spec, tmp_path / "whole"))


def test_a_finished_run_is_left_as_it_is(tmp_path):
    spec = make_spec()
    run(spec, tmp_path / "run")
    before = contents(tmp_path / "run")
    run(spec, tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == before


@pytest.mark.parametrize("damage", [lambda file: file.write_text("{"), Path.unlink])
def test_a_summary_that_is_lost_is_made_again_without_a_round(tmp_path, damage):
    spec = make_spec()
    whole = run(spec, tmp_path / "run")
    tables = {
        name: file for name, file in contents(tmp_path / "run").items() if name.endswith((".csv", "model.safetensors"))
    }
    damage(tmp_path / "run" / "summary.json")
    seen = []
    fleet = QuadraticFleet(spec, during=lambda number, _: seen.append(number))
    assert run(spec, tmp_path / "run", resume=True, fleet=fleet) == whole
    assert not seen
    assert contents(tmp_path / "run").items() >= tables.items()


def test_a_run_is_done_though_its_journal_cannot_be_made_smaller(tmp_path):
    """Where the last checkpoint's draft would be written is a folder."""
    spec = make_spec()
    draft = tmp_path / "run" / "journal" / f"round-{ROUNDS:08d}.safetensors.part"
    interrupt(spec, tmp_path / "run", ROUNDS)
    draft.mkdir()
    assert run(spec, tmp_path / "run", resume=True)["status"] == "done"
    assert len(checkpoints(tmp_path / "run")) == 2


def test_a_run_that_goes_on_has_none_of_the_files_of_one_that_has_ended(tmp_path):
    spec = make_spec()
    interrupt(spec, tmp_path / "cut", 2)
    ends = [tmp_path / "cut" / name for name in ("summary.json", "shortfall.csv")]
    assert all(file.exists() for file in ends)
    pages = [tmp_path / "cut" / name for name in ("report.html", "table.csv", "table.md")]
    for file in pages:
        file.write_text("of the run as it ended")
    seen = []
    fleet = QuadraticFleet(spec, during=lambda *_: seen.extend(file.exists() for file in ends))
    run(spec, tmp_path / "cut", resume=True, fleet=fleet)
    assert seen
    assert not any(seen)
    assert all(file.exists() for file in ends)
    assert not any(file.exists() for file in pages)


def test_another_configuration_is_an_error_that_names_the_key(tmp_path):
    interrupt(make_spec(), tmp_path / "run", 2)
    before = contents(tmp_path / "run")
    with pytest.raises(FolderError, match=r"another configuration \(it differs in rounds.count\)"):
        run(make_spec(rounds=8), tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == before


def test_the_run_of_another_version_is_told_as_such(tmp_path):
    """A key is new since: its config.json would not help."""
    interrupt(make_spec(), tmp_path / "run", 2)
    document = make_spec().document
    newer = replace(make_spec(), document=document | {"rounds": {**document["rounds"], "patience": 1}, "hash": "new"})
    with pytest.raises(FolderError, match=r"another version of parityfl \(only one of the two knows rounds.patience\)"):
        run(newer, tmp_path / "run", resume=True)


def test_a_folder_that_is_not_empty_is_an_error(tmp_path):
    spec = make_spec()
    interrupt(spec, tmp_path / "run", 2)
    with pytest.raises(FolderError, match="is not empty"):
        run(spec, tmp_path / "run")


@pytest.mark.parametrize("content", ["{}", "no json", "[1]", None])
def test_a_foreign_folder_is_an_error(tmp_path, content):
    (tmp_path / "other").write_text("mine")
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(FolderError, match="no run of ours"):
        run(make_spec(), tmp_path, resume=True)
    assert (tmp_path / "other").read_text() == "mine"


@pytest.mark.parametrize("resume", [True, False])
def test_clients_may_be_quicker_than_the_coordinator(tmp_path, resume):
    """Their credentials are there before the run is; a run that was killed then begins like any other."""
    (tmp_path / "run" / "clients" / "credentials").mkdir(parents=True)
    assert_same_end(run(make_spec(), tmp_path / "run", resume=resume), run(make_spec(), tmp_path / "whole"))


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(FolderError, match="is a file"):
        run(make_spec(), tmp_path / "run")


def test_a_file_on_the_way_to_the_folder_is_named(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(FolderError, match=f"folder {file}/sub/run cannot be made, because {file} is a file: choose"):
        run(make_spec(), file / "sub" / "run")


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    """Where a link leads nowhere not even root can make one."""
    (tmp_path / "link").symlink_to(tmp_path / "gone" / "away")
    with pytest.raises(
        FolderError, match=r"output folder \S*link/run cannot be made \(File exists\): choose another --out$"
    ):
        run(make_spec(), tmp_path / "link" / "run")


def test_a_folder_that_the_system_refuses_is_one_line(tmp_path):
    with pytest.raises(FolderError, match=r"output folder .*aaa cannot be read \(File name too long\): choose another"):
        run(make_spec(), tmp_path / ("a" * 300))


def test_two_writers_do_not_share_a_folder(tmp_path, monkeypatch):
    spec = make_spec()
    interrupt(spec, tmp_path / "run", 2)
    monkeypatch.setattr("parityfl.engine.folder.LOCK_PATIENCE_S", 0.1)
    monkeypatch.setattr("parityfl.engine.folder.LOCK_PAUSE_S", 0.01)

    async def both():
        async with RunFolder(tmp_path / "run").locked():
            await asyncio.to_thread(run, spec, tmp_path / "run", resume=True)

    before = contents(tmp_path / "run")
    with pytest.raises(FolderError, match="written by another process"):
        asyncio.run(both())
    assert contents(tmp_path / "run") == before
    assert run(spec, tmp_path / "run", resume=True)["status"] == "done"


def test_a_folder_where_only_who_may_write_gets_a_lock(tmp_path, monkeypatch):
    """NFS has locks of records in the place of the others."""
    monkeypatch.setattr(fcntl, "flock", fcntl.lockf)
    assert run(make_spec(), tmp_path / "run")["status"] == "done"


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EBADF])
def test_a_folder_without_locks_is_one_line(tmp_path, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(FolderError, match=rf"run cannot be kept .*{os.strerror(code)}\): choose an --out") as caught:
        run(make_spec(), tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_a_configuration_that_cannot_be_opened_is_one_line(tmp_path):
    spec, folder = make_spec(), RunFolder(tmp_path / "run")
    folder.prepare(spec.document, resume=False)
    (tmp_path / "run" / "config.json").unlink()

    async def lock():
        async with folder.locked():
            pass

    with pytest.raises(FolderError, match=r"run cannot be written \(No such file or directory\): make room or"):
        asyncio.run(lock())


class Overtaken(RunFolder):
    """A folder in which somebody else, of another configuration maybe, begins a run once this one has looked at it."""

    def __init__(self, path, theirs):
        super().__init__(path)
        self.theirs = theirs

    def _is_fresh(self):
        fresh = super()._is_fresh()
        if fresh:
            RunFolder(self.path).prepare(self.theirs, resume=False)
            self.inode = (self.path / "config.json").stat().st_ino
        return fresh


def test_of_two_that_begin_at_the_same_moment_the_second_finds_the_folder_taken(tmp_path):
    spec = make_spec()
    folder = Overtaken(tmp_path / "run", spec.document)
    with pytest.raises(FolderError, match="is not empty"):
        folder.prepare(spec.document, resume=False)
    config = tmp_path / "run" / "config.json"
    assert config.stat().st_ino == folder.inode, "whoever has the lock on it has it on what is there"
    assert list(contents(tmp_path / "run")) == ["config.json"]


def test_of_two_that_resume_at_the_same_moment_the_second_waits_for_the_lock(tmp_path):
    spec = make_spec()
    folder = Overtaken(tmp_path / "run", spec.document)
    assert folder.prepare(spec.document, resume=True) is False
    assert (tmp_path / "run" / "config.json").stat().st_ino == folder.inode
    another = Overtaken(tmp_path / "other", make_spec(rounds=8).document)
    with pytest.raises(FolderError, match=r"another configuration \(it differs in rounds.count\)"):
        another.prepare(spec.document, resume=True)


def test_of_many_that_begin_at_once_one_does(tmp_path):
    document = make_spec().document

    def begin(path):
        try:
            RunFolder(path).prepare(document, resume=False)
        except FolderError:
            return 0
        return 1

    with ThreadPoolExecutor(4) as pool:
        for number in range(50):
            assert sum(pool.map(begin, [tmp_path / str(number)] * 4)) == 1


def test_a_folder_without_hard_links_will_do(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    assert run(make_spec(), tmp_path / "run")["status"] == "done"
    assert json.loads((tmp_path / "run" / "config.json").read_text())["hash"] == make_spec().document["hash"]


def test_the_tables_are_begun_by_whoever_has_the_lock(tmp_path):
    RunFolder(tmp_path / "run").prepare(make_spec().document, resume=False)
    assert list(contents(tmp_path / "run")) == ["config.json"]


@pytest.mark.parametrize("limit", [900, 2500, 6000])
def test_a_file_that_the_system_refuses_ends_the_run_resumably(tmp_path, limit):
    """A limit on the size of files is met by a checkpoint at once, or by a growing table some rounds later."""
    spec = make_spec(rounds=10)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(UnfinishedError, match=r"cannot be written .*go on with --resume"):
            run(spec, tmp_path / "cut")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_same_end(run(spec, tmp_path / "cut", resume=True), run(spec, tmp_path / "whole"))


@pytest.mark.skipif(not sys.platform.startswith("linux") or os.geteuid() != 0, reason="only root can mount a disk")
def test_a_full_disk_ends_the_run_resumably(tmp_path):
    disk, spec = tmp_path / "disk", make_spec(rounds=20)
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=60k", "tmpfs", disk], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("this machine does not let us mount a disk")
    try:
        with pytest.raises(UnfinishedError, match="No space left on device") as caught:
            run(spec, disk / "run")
        assert caught.value.exit_code == 3
        subprocess.run(["mount", "-o", "remount,size=10M", disk], check=True)
        assert_same_end(run(spec, disk / "run", resume=True), run(spec, tmp_path / "whole"))
    finally:
        subprocess.run(["umount", disk], check=True)


def test_idle_rounds_end_the_run(tmp_path):
    spec = make_spec(max_idle_rounds=3, rounds=8)
    with pytest.raises(UnfinishedError, match=r"no valid update in 3 rounds in a row.*after round 3 of 8"):
        run(spec, tmp_path / "run", fleet=QuadraticFleet(spec, fates=(Outcome.FAILED,)))
    summary = RunFolder(tmp_path / "run").summary()
    assert (summary["status"], summary["rounds_completed"]) == ("failed", 3)
    assert_holds(tmp_path / "run")
    assert run(spec, tmp_path / "run", resume=True)["status"] == "done"


def test_a_run_that_gave_up_and_is_killed_as_it_goes_on_goes_on_again(tmp_path):
    """It gave up after round 3, and is resumed. What a kill in round 4 would leave has as much patience as a resume."""
    spec = make_spec(max_idle_rounds=3, rounds=8)
    with pytest.raises(UnfinishedError, match="no valid update in 3 rounds"):
        run(spec, tmp_path / "run", fleet=QuadraticFleet(spec, fates=(Outcome.FAILED,)))

    def kill(round, _):
        if not (tmp_path / "killed").exists():
            shutil.copytree(tmp_path / "run", tmp_path / "killed")

    whole = run(spec, tmp_path / "run", resume=True, fleet=QuadraticFleet(spec, during=kill))
    assert not (tmp_path / "killed" / "summary.json").exists()
    assert len(checkpoints(tmp_path / "killed")) == 2
    assert_same_end(run(spec, tmp_path / "killed", resume=True), whole)


def test_a_run_that_is_killed_while_it_is_idle_has_no_more_patience_than_before(tmp_path):
    """Of three idle rounds it had two when it was killed: after one more it gives up."""
    spec = make_spec(max_idle_rounds=3, rounds=8)
    fleet = QuadraticFleet(spec, fates=(Outcome.FAILED,))
    with pytest.raises(InterruptedRunError):
        run(spec, tmp_path / "run", fleet=fleet, observers=[Raising(2)])
    with pytest.raises(UnfinishedError, match=r"no valid update in 3 rounds in a row.*after round 3 of 8"):
        run(spec, tmp_path / "run", resume=True, fleet=fleet)


def test_what_is_not_reproducible_is_remembered_over_a_resume(tmp_path):
    spec = make_spec()
    fates = (Outcome.COMPLETED, Outcome.TIMED_OUT)
    fleet = QuadraticFleet(spec, fates=fates, reproducible=False)

    def stop(round, _):
        if round == 4:
            raise InterruptedRunError

    fleet.during = stop
    with pytest.raises(InterruptedRunError):
        run(spec, tmp_path / "run", fleet=fleet)
    assert run(spec, tmp_path / "run", resume=True)["deterministic"] is False
    assert run(spec, tmp_path / "calm")["deterministic"] is True


def test_states_of_any_shape_come_back_as_they_were(tmp_path):
    """A scalar stays a scalar, a boolean a boolean: three rounds resumed one by one meet the same state."""
    uniform = selector.get("uniform")
    seen = []

    class Odd(uniform):
        def init(self, world):
            return {"scalar": np.zeros(()), "flags": np.zeros(2, dtype=bool), "none": np.zeros((0, 3))}

        def observe(self, state, record, world):
            seen.append({name: (array.shape, array.dtype) for name, array in state.items()})
            return {**state, "scalar": state["scalar"] + 1}

    spec = make_spec(select=Odd(), rounds=3)
    stop_after_every_round(replace(spec), tmp_path / "cut")
    assert all(each == seen[0] for each in seen)
    assert seen[0]["scalar"] == ((), np.dtype(float))


def test_the_same_run_twice_ends_the_same(tmp_path):
    spec = make_spec()
    assert hashes(run(spec, tmp_path / "one")) == hashes(run(spec, tmp_path / "two"))
