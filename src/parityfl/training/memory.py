"""What clients keep between rounds (a personal model, a control variate), by client and round.

A coordinator may go back: to the round before (its newest checkpoint is damaged), or over a round that did not count
(the reply was late). So beside the newest version the one that it was made from is kept, and the one before that. With
a folder they outlive the process. Of these only the newest versions are in memory too, and no more than `HELD_BYTES`:
all versions of many clients of a large model would take gigabytes, and reading them each time would lengthen a round of
a small model by a tenth or more.
"""

from pathlib import Path

from parityfl.array_files import DamagedError, read_arrays, write_arrays
from parityfl.core.errors import FolderError, UnfinishedError
from parityfl.core.types import Vector

HELD_BYTES = 2**26
"""How much of what is in the folder may be in memory as well."""


class LostMemoryError(FolderError):
    """What a client kept is missing or damaged: the run cannot go on exactly."""


class ClientMemory:
    """The vectors of the clients of one process.

    Args:
        folder: where they are kept; None keeps them in memory only.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._versions: dict[int, dict[int, Vector]] = {}

    def held(self, client: int, round: int) -> Vector | None:
        """Return what `recall` would where that needs no file; else None."""
        return self._versions.get(client, {}).get(round)

    def recall(self, client: int, round: int) -> Vector | None:
        """Return what the client kept when it completed `round`; None for round 0, which is before its first.

        Where it is not `held` it is read and checked, which takes its time: not on an event loop.

        Raises:
            LostMemoryError: there is no such version, or its file is damaged.
        """
        if round == 0:
            return None
        vector = self.held(client, round)
        return self._load(client, round) if vector is None else vector

    def store(self, client: int, round: int, vector: Vector, base: int) -> None:
        """Keep a vector as of `round`, made from the version of round `base` (0: none).

        `base` and the version before it stay, all others are forgotten.

        Raises:
            UnfinishedError: the disk is full or cannot be written; what was kept before is still good.
        """
        if self._folder is None:
            known = self._versions.get(client, {}) | {round: vector}
            self._versions[client] = {version: known[version] for version in _needed(known, round, base)}
            return
        self._versions.pop(client, None)  # a run may go over a round again, and keep another vector as of it
        try:
            self._save(client, round, vector, base)
        except OSError as error:
            raise UnfinishedError(
                f"what client {client} keeps cannot be written to {self._folder} ({error}): make room and go on "
                "with --resume"
            ) from None
        self._hold(client, round, vector)

    def _hold(self, client: int, round: int, vector: Vector) -> None:
        """Hold a client's newest version, and let go of that which was stored longest ago; all are of one size."""
        self._versions[client] = {round: vector}
        if len(self._versions) * vector.nbytes > HELD_BYTES:
            del self._versions[next(iter(self._versions))]

    def _save(self, client: int, round: int, vector: Vector, base: int) -> None:
        path = self._path(client, round)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_arrays(path, {"memory": vector})
        files = {int(file.stem): file for file in path.parent.glob("*.safetensors")}
        for version in files.keys() - _needed(files, round, base):
            files[version].unlink()

    def _load(self, client: int, round: int) -> Vector:
        lost = f"what client {client} kept in round {round} is lost"
        if self._folder is None:
            raise LostMemoryError(f"{lost}: it was kept in memory only; give its process a folder with --state")
        path = self._path(client, round)
        try:
            arrays, _ = read_arrays(path)
        except DamagedError as error:
            raise LostMemoryError(f"{lost}: {path} {error}; restore it, or start afresh in another folder") from None
        return arrays["memory"]

    def _path(self, client: int, round: int) -> Path:
        assert self._folder is not None
        return self._folder / str(client) / f"{round}.safetensors"


def _needed(known: "dict[int, Vector] | dict[int, Path]", round: int, base: int) -> set[int]:
    """Return the versions that the coordinator could still name."""
    before = [version for version in known if version < base]
    return {round, *(version for version in known if version == base), *sorted(before)[-1:]}
