"""How a run is kept in its folder: the journal, the tables, and what is written when it ends."""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from time import monotonic

import numpy as np

from parityfl.array_files import Arrays
from parityfl.core.arrays import model_hash
from parityfl.core.errors import UnfinishedError
from parityfl.core.fairness import jsonable
from parityfl.core.selection.asking import noted
from parityfl.core.types import IntArray
from parityfl.engine.folder import TABLES, RunFolder, disk_errors
from parityfl.engine.journal import Checkpoint, Journal
from parityfl.engine.spec import RunSpec
from parityfl.engine.state import RunState
from parityfl.engine.tables import shortfall_lines

NO_LINES = dict.fromkeys(TABLES, "")


class RunKeeper:
    """Keeps a run in its folder.

    Attributes:
        began: when the run began, on the clock of `monotonic`, as if it had never been interrupted.
    """

    def __init__(self, spec: RunSpec, folder: RunFolder) -> None:
        self.began = monotonic()
        self._spec = spec
        self._folder = folder
        self._journal = Journal(folder.journal, spec.world.num_clients, durable=not spec.virtual)
        self._last: RunState
        self._figures: Mapping[str, float] = {}

    def read(self, initial: Callable[[], Arrays]) -> Checkpoint | None:
        """Return the newest good checkpoint; see `Journal.read`."""
        return self._journal.read(initial)

    def begin(self, start: Checkpoint | RunState) -> RunState:
        """Return the state to go on from, with the folder brought to it.

        Args:
            start: the checkpoint to resume, or the state of a fresh run.

        Raises:
            UnfinishedError: the disk is full or cannot be written.
        """
        with disk_errors(self._folder.path, UnfinishedError):
            self._last = self._resumed(start) if isinstance(start, Checkpoint) else self._started(start)
            self._folder.drop_end()
        return self._last

    def close_round(
        self, state: RunState, lines: Mapping[str, str], touched: IntArray, figures: Mapping[str, float]
    ) -> None:
        """Write the journal, then the tables.

        Args:
            state: after the round.
            lines: the round's lines of each table.
            touched: the clients whose rows changed.
            figures: the row of rounds.csv.

        Raises:
            UnfinishedError: the disk is full or cannot be written.
        """
        with disk_errors(self._folder.path, UnfinishedError):
            self._journal.write(self._checkpoint(state, lines, figures), touched)
            self._folder.append(lines, durable=not self._spec.virtual)
        self._last, self._figures = state, figures

    def leave(self, status: str) -> None:
        """Write what a run that did not get to its end has come to, up to its last complete round."""
        self._folder.settle()
        self._conclude(self._last, status)

    def finish(self, state: RunState) -> None:
        """Write the final model and the summary, from which on the journal holds no more than they can be made of.

        Raises:
            PartError: the selector is one of another package, and its notes fail.
            UnfinishedError: the disk is full or cannot be written.
        """
        with disk_errors(self._folder.path, UnfinishedError):
            self._conclude(state, "done")
        with suppress(OSError):  # the run is done all the same: its journal takes more room than it need
            self._journal.close(self._checkpoint(state, NO_LINES, self._figures))

    def _started(self, state: RunState) -> RunState:
        self._folder.start_tables(durable=not self._spec.virtual)
        self._journal.write(self._checkpoint(state, NO_LINES, {}), np.arange(0))
        return state

    def _resumed(self, checkpoint: Checkpoint) -> RunState:
        document = checkpoint.document
        lines = {name: checkpoint.arrays[f"lines/{name}"].tobytes().decode() for name in TABLES}
        self._folder.rewind(document["tables"], lines, durable=not self._spec.virtual)
        self.began = monotonic() - document["elapsed_s"]
        self._figures = {name: math.nan if value is None else value for name, value in document["figures"].items()}
        if self._folder.summary().get("status") == "failed":
            checkpoint = replace(checkpoint, document={**document, "idle_rounds": 0})
            self._journal.write(checkpoint, np.arange(0))  # before the summary goes: nothing else says that it gave up
        return RunState.restore(checkpoint)

    def _checkpoint(self, state: RunState, lines: Mapping[str, str], figures: Mapping[str, float]) -> Checkpoint:
        """Return the checkpoint of a state, with the lines that the tables do not have yet."""
        texts = {f"lines/{name}": np.frombuffer(text.encode(), dtype=np.uint8) for name, text in lines.items()}
        document = {
            **state.document(),
            "tables": self._folder.marks(),
            "elapsed_s": monotonic() - self.began,
            "figures": jsonable(figures),
        }
        return Checkpoint(state.ledger.rounds, state.arrays() | texts, document)

    def _conclude(self, state: RunState, status: str) -> None:
        spec, digest = self._spec, model_hash(state.weights)
        notes = {
            **noted(spec.selector, state.selector),
            **state.notes,
        }  # before anything is written: a part of another package may fail
        self._folder.write_shortfall(shortfall_lines(state.ledger, spec.device_ids))
        self._folder.write_model(state.weights, spec.layout, {"model_hash": digest, "round": str(state.ledger.rounds)})
        seen = state.ledger.available > 0
        self._folder.write_summary(
            {
                "status": status,
                "rounds_completed": state.ledger.rounds,
                "model_hash": digest,
                "ledger_hash": self._folder.ledger_hash(),
                "deterministic": state.deterministic and self._spec.repeatable,
                "seed": spec.world.seed,
                "num_clients": int(np.sum(state.ledger.first_round > 0)),
                "late": {
                    spec.device_ids[client]: int(state.ledger.late[client])
                    for client in np.flatnonzero(state.ledger.late).tolist()
                },
                "num_never_available": int(np.sum((state.ledger.first_round > 0) & ~seen)),
                **{name: value for name, value in jsonable(self._figures).items() if name != "round"},
                "notes": jsonable({name: float(value) for name, value in notes.items()}),
            }
        )
