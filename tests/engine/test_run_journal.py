"""The journal alone: what goes in comes out, and a changed file is never taken for a good one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from parityfl.core.errors import FolderError
from parityfl.core.types import Update
from parityfl.engine.fleet import Late
from parityfl.engine.journal import Checkpoint, Journal
from parityfl.engine.state import RunState

DTYPES = [np.float64, np.float32, np.float16, np.int64, np.uint8, np.bool_]
CLIENTS = 3


def rows(value):
    return np.full((CLIENTS, 2), value, dtype=np.float32)


def state(value):
    """Return arrays of which one has a row per client."""
    return {"plain": np.full(4, value), "method/row_memory": rows(value)}


def write(journal, number, touched):
    journal.write(Checkpoint(number, state(float(number)), {"text": "ä", "number": float("nan")}), np.array(touched))


def same(left, right):
    return left.shape == right.shape and left.dtype == right.dtype and left.tobytes() == right.tobytes()


def test_nothing_written_is_nothing_read(tmp_path):
    assert Journal(tmp_path / "journal", CLIENTS).read(dict) is None


@given(
    st.dictionaries(
        st.text("abc/", min_size=1, max_size=4),
        st.sampled_from(DTYPES).flatmap(lambda d: arrays_of.arrays(d, arrays_of.array_shapes(min_dims=0, min_side=0))),
        max_size=4,
    )
)
@settings(max_examples=60, deadline=None)
def test_arrays_come_back_bit_by_bit(tmp_path_factory, arrays):
    folder = tmp_path_factory.mktemp("journal")
    Journal(folder, CLIENTS).write(Checkpoint(5, arrays, {"a": [1, None]}), np.arange(0))
    found = Journal(folder, CLIENTS).read(dict)
    assert found.round == 5
    assert found.document == {"a": [1, None]}
    assert set(found.arrays) == set(arrays)
    assert all(same(found.arrays[name], array) for name, array in arrays.items())


def test_rows_are_those_of_each_clients_last_participation(tmp_path):
    """Client 0 takes part in rounds 1 and 3, client 1 in 2, client 2 never: rows 3, 2 and the initial 0."""
    journal = Journal(tmp_path, CLIENTS)
    for number, touched in ((1, [0]), (2, [1]), (3, [0])):
        write(journal, number, touched)
    found = Journal(tmp_path, CLIENTS).read(lambda: state(0.0))
    np.testing.assert_array_equal(found.arrays["method/row_memory"][:, 0], [3, 2, 0])
    np.testing.assert_array_equal(found.arrays["plain"], np.full(4, 3.0))


def test_a_fallback_does_not_keep_rows_of_the_newer_checkpoint(tmp_path):
    """Round 3 touched clients 0 and 2; its checkpoint reads row 0 and then fails at row 2: row 0 is that of round 1."""
    journal = Journal(tmp_path, CLIENTS)
    for number, touched in ((1, [0]), (2, [1]), (3, [0, 2])):
        write(journal, number, touched)
    (tmp_path / "rows" / "2" / "3.safetensors").unlink()
    found = Journal(tmp_path, CLIENTS).read(lambda: state(0.0))
    assert found.round == 2
    np.testing.assert_array_equal(found.arrays["method/row_memory"][:, 0], [1, 2, 0])


def test_a_journal_goes_on_from_a_fallback(tmp_path):
    journal = Journal(tmp_path, CLIENTS)
    for number, touched in ((1, [0]), (2, [1]), (3, [0])):
        write(journal, number, touched)
    (tmp_path / "round-00000003.safetensors").write_bytes(b"")
    again = Journal(tmp_path, CLIENTS)
    assert again.read(lambda: state(0.0)).round == 2
    write(again, 3, [0])
    write(again, 4, [2])
    found = Journal(tmp_path, CLIENTS).read(lambda: state(0.0))
    assert found.round == 4
    np.testing.assert_array_equal(found.arrays["method/row_memory"][:, 0], [3, 2, 4])
    assert len(list(tmp_path.glob("round-*"))) == 2


def test_a_closed_journal_has_the_last_checkpoint_without_its_rows(tmp_path):
    journal = Journal(tmp_path, CLIENTS)
    for number, touched in ((1, [0]), (2, [1])):
        write(journal, number, touched)
    journal.close(Checkpoint(2, state(2.5), {"text": "the end"}))
    assert [file.name for file in tmp_path.iterdir()] == ["round-00000002.safetensors"]
    found = Journal(tmp_path, CLIENTS).read(lambda: state(0.0))
    assert (found.round, found.document) == (2, {"text": "the end"})
    np.testing.assert_array_equal(found.arrays["method/row_memory"], rows(0.0))
    np.testing.assert_array_equal(found.arrays["plain"], np.full(4, 2.5))


def test_every_flipped_bit_is_noticed(tmp_path):
    """One bit of each byte of a whole checkpoint: it is read as the one before, or as exactly what was written."""
    journal = Journal(tmp_path, CLIENTS)
    for number in (1, 2):
        journal.write(Checkpoint(number, {"a": np.arange(3.0), "b": np.zeros(2, bool)}, {"n": number}), np.arange(0))
    file = tmp_path / "round-00000002.safetensors"
    good = file.read_bytes()
    for position in range(len(good)):
        file.write_bytes(good[:position] + bytes([good[position] ^ 1 << position % 8]) + good[position + 1 :])
        found = Journal(tmp_path, CLIENTS).read(dict)
        kept = same(found.arrays["a"], np.arange(3.0)) and same(found.arrays["b"], np.zeros(2, bool))
        intact = found.document == {"n": 2} and kept
        assert found.round == 1 or intact, f"byte {position}"


def test_every_cut_is_noticed(tmp_path):
    write(Journal(tmp_path, CLIENTS), 1, [0])
    file = tmp_path / "round-00000001.safetensors"
    good = file.read_bytes()
    for length in range(len(good)):
        file.write_bytes(good[:length])
        with pytest.raises(FolderError, match="round-00000001"):
            Journal(tmp_path, CLIENTS).read(lambda: state(0.0))


def test_a_state_comes_back_whole(tmp_path):
    from parityfl.core.ledger import Ledger

    vector = np.arange(3, dtype=np.float32)
    late = (
        Late(Update(2, vector, 7, 0.5, control=vector, staleness=1), 2),
        Late(Update(0, vector, 7, float("nan"), staleness=3), 4),
    )
    before = RunState(
        ledger=Ledger.empty(CLIENTS),
        weights=vector,
        average=vector * 2,
        selector={"s": np.zeros(())},
        aggregator={"row_a": rows(0.0), "t": np.ones(2)},
        optimizer={},
        control=vector,
        late=late,
        deterministic=False,
        idle_rounds=4,
        notes={"clip_rate": np.float32(0.25)},
    )
    Journal(tmp_path, CLIENTS).write(Checkpoint(1, before.arrays(), before.document()), np.array([1]))
    after = RunState.restore(Journal(tmp_path, CLIENTS).read(before.arrays))
    assert {name: (a.shape, a.tobytes()) for name, a in before.arrays().items()} == {
        name: (a.shape, a.tobytes()) for name, a in after.arrays().items()
    }
    assert (after.deterministic, after.idle_rounds, after.notes) == (False, 4, {"clip_rate": 0.25})
    assert [(one.update.client, one.update.num_samples, one.update.staleness, one.enters) for one in after.late] == [
        (2, 7, 1, 2),
        (0, 7, 3, 4),
    ]
    assert after.late[1].update.control is None
    assert after.ledger.rounds == 0
    assert isinstance(after.ledger.rounds, int)


def test_a_checkpoint_of_another_version_is_told_from_a_damaged_one(tmp_path):
    """It lacks what this version keeps; nothing of it is taken."""
    write(Journal(tmp_path, CLIENTS), 1, [0])
    with pytest.raises(
        FolderError, match=r"round-00000001\.safetensors lacks newer: another version of parityfl wrote it"
    ):
        Journal(tmp_path, CLIENTS).read(lambda: {**state(0.0), "newer": np.zeros(1)})
