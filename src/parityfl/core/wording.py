"""Words for whoever reads a message, a log or a report."""

from collections.abc import Sequence


def listed(names: Sequence[str], most: int = 10) -> str:
    """Return names for a sentence; beyond `most`, how many more there are; `none` where there are none."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown or "none"
