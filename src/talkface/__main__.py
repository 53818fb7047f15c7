"""``python -m talkface``."""

from talkface.cli import entry

if __name__ == "__main__":
    entry()
