"""The command line."""

from talkface.cli import machine, verbs, workshop  # their commands, in the order of the help
from talkface.cli.program import app, entry, main

__all__ = ["app", "entry", "machine", "main", "verbs", "workshop"]
