"""Partitions: which training examples each client holds, as a pure function of the labels and the seed.

A partition is a list of N index arrays, the shards: disjoint, ascending, int64. N is the number of clients, C the
number of labels. Every rule draws from the purpose ``"partition"``, so all methods of a seed see the same shards.
"""

from collections.abc import Sequence

import numpy as np

from parityfl.core.errors import ConfigError
from parityfl.core.seeding import generator
from parityfl.core.types import FloatArray, IntArray

Shards = list[IntArray]

HANDFUL = 5
"""How many examples `quantity` gives even to its smallest client, where there are enough."""


def partition(
    kind: str,
    labels: IntArray,
    num_clients: int,
    seed: int,
    *,
    labels_per_client: int = 2,
    samples_per_client: int | None = None,
    alpha: float = 0.5,
) -> Shards:
    """Return the shards of the partition named `kind`: ``label-subset``, ``dirichlet``, ``iid`` or ``quantity``.

    Args:
        kind: the rule.
        labels: label of each training example, 0 .. C - 1, shape (n,).
        num_clients: N.
        seed: the run's seed.
        labels_per_client: how many labels a client of ``label-subset`` holds.
        samples_per_client: at most so many examples a client, None for as many as there are; not for ``quantity``.
        alpha: concentration of ``dirichlet`` and ``quantity``, above 0; the smaller, the more unlike the clients.

    Raises:
        ConfigError: no such rule, or more clients than the examples can serve.
    """
    if num_clients > len(labels):
        raise ConfigError(
            f"population.clients = {num_clients}: the {len(labels)} training examples cannot serve so many; "
            f"set population.clients to {len(labels)} or less, or choose a larger data set"
        )
    if kind == "label-subset":
        return label_subset(labels, num_clients, seed, labels_per_client, samples_per_client)
    if kind == "dirichlet":
        return dirichlet(labels, num_clients, seed, alpha, samples_per_client)
    if kind == "iid":
        return iid(labels, num_clients, seed, samples_per_client)
    if kind == "quantity":
        return quantity(labels, num_clients, seed, alpha)
    raise ConfigError(f"population.partition = {kind!r}: use label-subset, dirichlet, iid or quantity")


def label_subset(
    labels: IntArray, num_clients: int, seed: int, labels_per_client: int, samples_per_client: int | None = None
) -> Shards:
    """Give each client `labels_per_client` labels, each label to as many clients as any other (or one more or less).

    The examples of a label are split evenly among its holders; `samples_per_client` caps what a client takes, spread
    evenly over its labels. The label skew of McMahan et al., AISTATS 2017, with a balanced deal of the labels.

    Raises:
        ConfigError: there are not so many labels, or a label has fewer examples than holders.
    """
    present = np.unique(labels)
    if labels_per_client > len(present):
        raise ConfigError(
            f"population.labels_per_client = {labels_per_client}: the data set has {len(present)} labels; "
            "give a client no more than these"
        )
    rng = generator(seed, "partition")
    held = _deal_labels(present, num_clients, labels_per_client, rng)
    quota = _label_quota(num_clients, labels_per_client, samples_per_client, rng)
    parts: list[Shards] = [[] for _ in range(num_clients)]
    for label in present:
        clients, position = np.nonzero(held == label)
        pool = rng.permutation(np.flatnonzero(labels == label))
        if len(pool) < len(clients):
            raise ConfigError(
                f"population.clients = {num_clients}: label {label} has {len(pool)} examples for {len(clients)} "
                "holders; lower population.clients or population.labels_per_client"
            )
        shares = np.array_split(pool, len(clients)) if len(clients) else []
        for client, place, share in zip(clients, position, shares, strict=True):
            parts[client].append(share[: quota[client, place]])
    return [np.sort(np.concatenate(part)) for part in parts]


def _deal_labels(present: IntArray, num_clients: int, per_client: int, rng: np.random.Generator) -> IntArray:
    """Deal each client distinct labels from shuffled decks, shape (N, per_client); the whole deck before the next.

    Where a client takes the end of one deck and the start of the next, the labels that it already has wait further
    down the new deck, so that no client gets a label twice and every deck is used up.
    """
    held = np.empty((num_clients, per_client), dtype=np.int64)
    deck = rng.permutation(present)
    for client in range(num_clients):
        if len(deck) < per_client:
            fresh = rng.permutation(present)
            waiting = np.isin(fresh, deck)
            deck = np.concatenate([deck, fresh[~waiting], fresh[waiting]])
        held[client], deck = deck[:per_client], deck[per_client:]
    return held


def _label_quota(num_clients: int, per_client: int, samples: int | None, rng: np.random.Generator) -> IntArray:
    """Return how many examples each client takes at most of each of its labels, shape (N, per_client)."""
    if samples is None:
        return np.full((num_clients, per_client), np.iinfo(np.int64).max)
    if samples < per_client:
        raise ConfigError(
            f"population.samples_per_client = {samples} is less than population.labels_per_client = {per_client}: "
            "a client needs an example of each of its labels"
        )
    each, extra = divmod(samples, per_client)
    return rng.permuted(np.tile(each + (np.arange(per_client) < extra), (num_clients, 1)), axis=1)


def dirichlet(
    labels: IntArray, num_clients: int, seed: int, alpha: float, samples_per_client: int | None = None
) -> Shards:
    """Give each client equally many examples, its label shares drawn from Dirichlet(alpha C p), p the overall shares.

    The synthetic clients of Hsu et al., 2019 (arXiv:1909.06335): clients take their examples one after the other,
    without replacement; the shares of a label that is used up go to the client's other labels. Where the labels are
    balanced this is Dirichlet(alpha, ..., alpha), as in most of the later papers; Hsu's own alpha is C times ours.
    Those who come last find fewer labels left, so the order in which clients come is drawn too.
    """
    rng = generator(seed, "partition")
    present, counts = np.unique(labels, return_counts=True)
    pools = [rng.permutation(np.flatnonzero(labels == label)) for label in present]
    size = _capped(len(labels) // num_clients, samples_per_client)
    shares = rng.dirichlet(alpha * len(present) * counts / counts.sum(), size=num_clients)
    used = np.zeros(len(present), dtype=np.int64)
    shards = []
    for share in shares:
        taken = _draw_counts(share, counts - used, size, rng)
        picks = [pool[start : start + count] for pool, start, count in zip(pools, used, taken, strict=True)]
        shards.append(np.sort(np.concatenate(picks)))
        used += taken
    return [shards[place] for place in rng.permutation(num_clients)]


def _draw_counts(share: FloatArray, left: IntArray, size: int, rng: np.random.Generator) -> IntArray:
    """Draw how many examples of each label make up `size`, by `share`, within what is `left`, shape (C,)."""
    taken = np.zeros_like(left)
    while (missing := size - int(taken.sum())) > 0:
        open_share = np.where(taken < left, share, 0.0)
        if not open_share.sum() > 0:
            open_share = (left - taken).astype(np.float64)
        taken = np.minimum(taken + rng.multinomial(missing, open_share / open_share.sum()), left)
    return taken


def iid(labels: IntArray, num_clients: int, seed: int, samples_per_client: int | None = None) -> Shards:
    """Deal the shuffled examples evenly."""
    dealt = np.array_split(generator(seed, "partition").permutation(len(labels)), num_clients)
    return [np.sort(part[: _capped(len(part), samples_per_client)]) for part in dealt]


def quantity(labels: IntArray, num_clients: int, seed: int, alpha: float) -> Shards:
    """Give clients shuffled examples in amounts drawn from Dirichlet(alpha), and nobody less than a handful.

    The quantity skew of Li et al., ICDE 2022 (NIID-Bench).
    """
    rng = generator(seed, "partition")
    least = min(HANDFUL, len(labels) // num_clients)
    shares = rng.dirichlet(np.full(num_clients, alpha))
    sizes = least + rng.multinomial(len(labels) - least * num_clients, shares)
    dealt = np.split(rng.permutation(len(labels)), np.cumsum(sizes)[:-1])
    return [np.sort(part) for part in dealt]


def _capped(size: int, cap: int | None) -> int:
    return size if cap is None else min(size, cap)


def holdout(labels: IntArray, shard: IntArray, fraction: float, seed: int, client: int) -> tuple[IntArray, IntArray]:
    """Split a client's shard into what it trains on and its own held-out part.

    The examples are shuffled, ordered by label, and every (1 / fraction)-th is held out, so each label gives its
    share to within one example.

    Args:
        labels: label of each training example of the data set.
        shard: the client's indices into it.
        fraction: share to hold out, in [0, 1); above 0 at least one example is held out and one is not.
        seed: the run's seed.
        client: the client's index.

    Returns:
        Indices to train on and held-out indices, both ascending.

    Raises:
        ConfigError: a shard of one example cannot be split.
    """
    if fraction == 0:
        return shard, shard[:0]
    if len(shard) < 2:
        raise ConfigError(
            f"population.holdout = {fraction}: client {client} has {len(shard)} example and would have none to train "
            "on; lower population.clients, raise population.samples_per_client, or set population.holdout = 0"
        )
    shuffled = generator(seed, "holdout", client=client).permutation(shard)
    ordered = shuffled[np.argsort(labels[shuffled], kind="stable")]
    count = int(np.clip(round(fraction * len(shard)), 1, len(shard) - 1))
    held = np.zeros(len(shard), dtype=np.bool_)
    held[((np.arange(count) + 0.5) * len(shard) / count).astype(np.int64)] = True
    return np.sort(ordered[~held]), np.sort(ordered[held])


def label_counts(labels: IntArray, shards: Sequence[IntArray], num_labels: int) -> IntArray:
    """Return how many examples of each label each client holds, shape (N, C)."""
    owner = np.repeat(np.arange(len(shards)), [len(shard) for shard in shards])
    cells = owner * num_labels + labels[np.concatenate(shards)] if shards else owner
    return np.bincount(cells, minlength=len(shards) * num_labels).reshape(len(shards), num_labels)
