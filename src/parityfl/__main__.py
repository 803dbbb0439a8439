"""``python -m parityfl`` is the command ``parityfl``."""

from parityfl.cli import command

command()
