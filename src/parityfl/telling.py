"""What the user is told on standard error, a line at a time."""

import sys

PREFIX = "parityfl: "
"""What such a line begins with."""


def tell(line: str) -> None:
    """Tell the user something."""
    print(f"{PREFIX}{line}", file=sys.stderr)
