import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parityfl.core.errors import ConfigError
from parityfl.core.partition import HANDFUL, Shards, holdout, label_counts, partition
from parityfl.core.types import IntArray

KINDS = ["label-subset", "dirichlet", "iid", "quantity"]


def balanced(num_labels: int, each: int) -> IntArray:
    """Labels 0, 1, ..., each as often."""
    return np.tile(np.arange(num_labels), each)


def assert_disjoint(shards: Shards, num_examples: int) -> None:
    everything = np.concatenate(shards)
    assert len(np.unique(everything)) == len(everything)
    assert everything.min() >= 0
    assert everything.max() < num_examples
    assert all(np.array_equal(shard, np.sort(shard)) and shard.dtype == np.int64 for shard in shards)


@given(
    kind=st.sampled_from(KINDS),
    num_clients=st.integers(1, 12),
    alpha=st.floats(0.02, 50),
    samples=st.none() | st.integers(4, 30),
    per_client=st.integers(1, 4),
    seed=st.integers(0, 2**40),
)
@settings(max_examples=60, deadline=None)
def test_shards_are_disjoint_seeded_and_never_empty(*, kind, num_clients, alpha, samples, per_client, seed):
    labels = balanced(4, 20)
    keys = {"alpha": alpha, "samples_per_client": samples, "labels_per_client": per_client}
    shards = partition(kind, labels, num_clients, seed, **keys)
    assert len(shards) == num_clients
    assert_disjoint(shards, len(labels))
    assert min(len(shard) for shard in shards) >= 1
    again = partition(kind, labels, num_clients, seed, **keys)
    assert all(np.array_equal(one, other) for one, other in zip(shards, again, strict=True))
    if samples is not None and kind != "quantity":
        assert max(len(shard) for shard in shards) <= samples


@given(
    num_labels=st.integers(1, 7), per_client=st.integers(1, 7), num_clients=st.integers(1, 15), seed=st.integers(0, 99)
)
@settings(max_examples=60, deadline=None)
def test_label_subset_is_balanced(num_labels, per_client, num_clients, seed):
    per_client = min(per_client, num_labels)
    labels = balanced(num_labels, 30)
    shards = partition("label-subset", labels, num_clients, seed, labels_per_client=per_client)
    counts = label_counts(labels, shards, num_labels)
    assert np.all(np.count_nonzero(counts, axis=1) == per_client)
    holders = np.count_nonzero(counts, axis=0)
    assert holders.max() - holders.min() <= 1


def test_label_subset_splits_a_label_evenly_among_its_holders():
    """4 labels x 12 examples, 4 clients x 2 labels: 2 holders a label, 6 examples of each label, 12 in all."""
    labels = balanced(4, 12)
    counts = label_counts(labels, partition("label-subset", labels, 4, seed=3, labels_per_client=2), 4)
    assert set(counts.ravel().tolist()) == {0, 6}
    assert counts.sum(axis=1).tolist() == [12, 12, 12, 12]


def test_label_subset_spreads_a_cap_over_the_labels():
    """Five examples over two labels: three of one and two of the other."""
    labels = balanced(4, 12)
    shards = partition("label-subset", labels, 4, seed=0, labels_per_client=2, samples_per_client=5)
    for row in label_counts(labels, shards, 4):
        assert sorted(row[row > 0].tolist()) == [2, 3]


def test_label_subset_uses_every_example_when_every_label_is_held():
    labels = balanced(10, 7)
    shards = partition("label-subset", labels, 5, seed=1, labels_per_client=2)
    assert sum(len(shard) for shard in shards) == len(labels)


def test_dirichlet_clients_are_equally_large_and_the_skew_follows_alpha():
    labels = balanced(10, 100)
    sizes, largest = {}, {}
    for alpha in (0.05, 100.0):
        shards = partition("dirichlet", labels, 10, seed=0, alpha=alpha)
        counts = label_counts(labels, shards, 10)
        sizes[alpha] = counts.sum(axis=1)
        largest[alpha] = (counts.max(axis=1) / counts.sum(axis=1)).mean()
    assert np.all(sizes[0.05] == 100)
    assert np.all(sizes[100.0] == 100)
    assert largest[0.05] > 0.5
    assert largest[100.0] < 0.25


def test_iid_shards_differ_by_at_most_one():
    sizes = [len(shard) for shard in partition("iid", balanced(3, 11), 4, seed=0)]
    assert sum(sizes) == 33
    assert max(sizes) - min(sizes) <= 1


@given(alpha=st.floats(0.01, 10), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_quantity_uses_everything_and_gives_a_handful(alpha, seed):
    sizes = [len(shard) for shard in partition("quantity", balanced(5, 40), 8, seed, alpha=alpha)]
    assert sum(sizes) == 200
    assert min(sizes) >= HANDFUL


def test_quantity_shares_what_there_is_when_a_handful_is_too_much():
    """Seven examples for three clients: two each at least."""
    assert min(len(shard) for shard in partition("quantity", balanced(1, 7), 3, seed=0, alpha=0.1)) >= 2


@pytest.mark.parametrize("kind", KINDS)
def test_more_clients_than_examples_is_a_mistake(kind):
    with pytest.raises(ConfigError, match=r"population\.clients = 21.*20 or less"):
        partition(kind, balanced(2, 10), 21, seed=0)


@pytest.mark.parametrize(
    ("num_clients", "keys", "message"),
    [
        (2, {"labels_per_client": 3}, r"labels_per_client = 3: the data set has 2 labels"),
        (20, {"labels_per_client": 2}, r"label 0 has 10 examples for 20 holders"),
        (2, {"labels_per_client": 2, "samples_per_client": 1}, r"samples_per_client = 1 is less"),
    ],
)
def test_label_subset_mistakes(num_clients, keys, message):
    with pytest.raises(ConfigError, match=message):
        partition("label-subset", balanced(2, 10), num_clients, seed=0, **keys)


def test_unknown_partition():
    with pytest.raises(ConfigError, match="'by-moon'"):
        partition("by-moon", balanced(2, 10), 2, seed=0)


@given(size=st.integers(2, 60), fraction=st.floats(0.01, 0.99), client=st.integers(0, 5), seed=st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_holdout_splits_the_shard(size, fraction, client, seed):
    labels = np.arange(200) % 3
    shard = np.arange(size) * 2
    train, held = holdout(labels, shard, fraction, seed, client)
    assert np.array_equal(np.sort(np.concatenate([train, held])), shard)
    assert len(train) >= 1
    assert len(held) == np.clip(round(fraction * size), 1, size - 1)


def test_holdout_takes_a_share_of_every_label():
    """20 and 10 examples, a fifth held out: 4 and 2."""
    labels = np.repeat([0, 1], [20, 10])
    _, held = holdout(labels, np.arange(30), 0.2, seed=0, client=0)
    assert np.bincount(labels[held]).tolist() == [4, 2]


def test_holdout_of_nothing():
    train, held = holdout(np.zeros(3, dtype=np.int64), np.arange(3), 0.0, seed=0, client=0)
    assert train.tolist() == [0, 1, 2]
    assert held.tolist() == []


def test_holdout_of_a_single_example_is_a_mistake():
    with pytest.raises(ConfigError, match="client 7 has 1 example"):
        holdout(np.zeros(3, dtype=np.int64), np.arange(1), 0.2, seed=0, client=7)


def test_label_counts():
    """Client 0 holds labels 2, 2; client 1 holds 0; nobody holds 1."""
    counts = label_counts(np.array([2, 0, 2]), [np.array([0, 2]), np.array([1])], 4)
    assert counts.tolist() == [[0, 0, 2, 0], [1, 0, 0, 0]]


def test_in_dirichlet_the_place_of_a_client_says_nothing_of_its_skew():
    """Who draws last finds few labels left, so without a drawn order the last of 20 held 3 labels and the first 8."""
    labels = np.arange(2000) % 10
    dealt = [partition("dirichlet", labels, 20, seed, alpha=0.5) for seed in range(40)]
    held = np.array([[len(np.unique(labels[shard])) for shard in shards] for shards in dealt])
    assert abs(held[:, :5].mean() - held[:, -5:].mean()) < 0.6
