"""``python -m talkface.cli``."""

from talkface.cli import entry

entry()
