"""How long a round waits for replies: a fixed time, or one that follows the latencies that were seen."""

from dataclasses import dataclass
from math import inf

import numpy as np

from parityfl.core.ledger import Ledger

LEAST_KNOWN = 3
"""How many clients' latencies must be known before an adaptive deadline follows them."""


@dataclass(frozen=True)
class Deadline:
    """The round's deadline.

    The adaptive one is median(x) + spread * median(|x - median(x)|) over the clients' last known latencies x, at most
    `limit_s`. Of a client that missed a deadline only a bound is known, until it completes a round: it counts with
    `limit_s`. So when most clients are late the deadline grows back to the limit, and their true latencies are seen.

    Attributes:
        limit_s: the fixed deadline, and the longest that an adaptive one can become.
        adaptive: whether it follows the latencies.
        spread: how many median absolute deviations above the median.
    """

    limit_s: float = inf
    adaptive: bool = False
    spread: float = 4.0

    def seconds(self, ledger: Ledger) -> float:
        """Return the deadline of the round after the ledger's last, above 0."""
        known = ledger.latency_s[~np.isnan(ledger.latency_s)]
        if not self.adaptive or len(known) < LEAST_KNOWN:
            return self.limit_s
        overdue = (ledger.last_overdue > ledger.last_participated)[~np.isnan(ledger.latency_s)]
        latency = np.where(overdue, self.limit_s, known)
        median = np.median(latency)
        return float(min(self.limit_s, median + self.spread * np.median(np.abs(latency - median))))
