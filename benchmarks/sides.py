"""The names of sides that more than one script speaks of."""

IDIOM = "Flask, requests, torch.save"
"""How the first systems of this kind did it."""

PLAIN, LOOP, AT_ONCE, IN_ROUNDS = "one plain torch loop", "one bare loop", "a bare loop a core", "bare loops in rounds"
MEASURING = "bare loops in rounds, held-out parts measured"
ENGINE, USUAL, EVALUATION = "the engine, nothing held out", "the engine", "the engine's evaluation"
UNEVEN = "the engine, clients of unlike sizes"


def all_cores(loop: str) -> str:
    """Return the side of one loop's rate times the number of cores."""
    return f"cores x {loop}"


def beside(side: str, other: str) -> str:
    """Return the name of the ratio of two sides within a turn."""
    return f"{side} / {other}"
