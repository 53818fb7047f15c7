"""What a system is evaluated on, and how clips that cannot be scored are left out."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from talkface.errors import InvalidOption, TalkfaceError
from talkface.systems.pipeline import parts_to_leave_out

logger = logging.getLogger(__name__)

Thing = TypeVar("Thing")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to evaluate a system on; the fields are those of :func:`talkface.evaluation.evaluate_system`."""

    data: Path
    output: Path
    split: str = "val"
    limit: int | None = None
    seed: int = 0
    syncnet: Path | None = None
    models: Path | None = None
    renderer: str = "auto"
    without: tuple[str, ...] = ()

    @property
    def videos(self) -> Path:
        """Folder of the generated videos."""
        return self.output / "videos"

    @property
    def weights(self) -> str:
        """Where a pipeline's weights come from: the folder of the user's own, or the shipped ones."""
        return str(self.models) if self.models else "compact"

    def check_without(self, parts: Sequence[str]) -> None:
        """Refuse to leave out what the system does not have.

        Raises:
            InvalidOption: ``without`` holds something that is not in ``parts``.
        """
        if parts:
            parts_to_leave_out(self.without, parts)
        elif self.without:
            raise InvalidOption(f"there is no {', '.join(self.without)} to leave out of this system")


def counted(things: Sequence[Thing], name: Callable[[Thing], str]) -> Iterator[Thing]:
    """One thing after the other; the log says which it is and how many there are."""
    for number, thing in enumerate(things):
        logger.info("%d/%d %s", number + 1, len(things), name(thing))
        yield thing


@contextmanager
def leaving_out(
    name: str, left_out: list[str] | None = None, but: tuple[type[TalkfaceError], ...] = ()
) -> Iterator[None]:
    """What cannot be generated or scored is left out of a report, and the log says so.

    Args:
        name: Of what is done.
        left_out: Takes the name if it is left out.
        but: Errors that end the evaluation.
    """
    try:
        yield
    except but:
        raise
    except TalkfaceError as error:
        logger.warning("%s: left out: %s", name, error)
        if left_out is not None:
            left_out.append(name)
