"""Progress of a verb: a bar in a terminal, JSON lines for machines, or nothing.

Library code only calls back with ``(stage, done, total)``; how that is shown is decided here.
"""

import json
import logging
import sys
import time
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Mode(StrEnum):
    """``auto`` draws bars if standard error is a terminal, ``json`` writes a line a step, ``off`` neither."""

    auto = "auto"
    json = "json"
    off = "off"


class Reporter:
    """Shows stages and their progress on standard error while it is entered; pass it as the callback.

    The stage ``"frames"`` is also given as a real-time factor, once the frame rate is known from ``restart``.
    """

    _INTERVAL = 0.2  # seconds between JSON lines of one stage

    def __init__(self, mode: Mode = Mode.auto) -> None:
        self.mode, self.fps = mode, 0.0
        self._began: dict[str, float] = {}
        self._spoke: dict[str, float] = {}
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._handler = _Warnings(self)

    def __enter__(self) -> Self:
        logging.getLogger("talkface").addHandler(self._handler)
        if self.mode is Mode.auto and sys.stderr.isatty():
            self._bars = _bars()
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()
        logging.getLogger("talkface").removeHandler(self._handler)

    def restart(self, fps: float) -> None:
        """Begin another output: its stages are counted from now on."""
        self.fps = fps
        for seen in (self._began, self._spoke, self._tasks):
            seen.clear()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Take note that ``done`` of ``total`` units of a stage are done."""
        now = time.monotonic()
        elapsed = now - self._began.setdefault(stage, now)
        rate = done / elapsed if elapsed > 0 else 0.0
        realtime = rate / self.fps if self.fps and stage == "frames" else None
        if self._bars:
            self._draw(self._bars, stage, done, total, realtime)
        elif self.mode is Mode.json and (
            done >= total or now - self._spoke.get(stage, 0.0) >= self._INTERVAL
        ):
            self._spoke[stage] = now
            eta = round((total - done) / rate, 2) if rate else None
            factor = round(realtime, 3) if realtime is not None else None
            self.event(
                "progress",
                stage=stage,
                done=done,
                total=total,
                elapsed=round(elapsed, 2),
                eta=eta,
                realtime=factor,
            )

    def event(self, event: str, **values: object) -> None:
        """Write one JSON line, in JSON mode only."""
        if self.mode is Mode.json:
            print(json.dumps({"event": event, **values}), file=sys.stderr, flush=True)

    def warn(self, message: str) -> None:
        """Say something the user should know, above the bars."""
        if self.mode is Mode.json:
            self.event("warning", message=message)
        elif self._bars:
            self._bars.console.print(f"talkface: warning: {message}", markup=False, highlight=False)
        else:
            print(f"talkface: warning: {message}", file=sys.stderr)

    def _draw(self, bars: "Progress", stage: str, done: int, total: int, realtime: float | None) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = bars.add_task(stage, total=total, note="")
        note = f"{realtime:.1f}x real time" if realtime else ""
        bars.update(self._tasks[stage], completed=done, total=total, note=note)


class _Warnings(logging.Handler):
    """Turns the package's warnings into lines of the reporter."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__(logging.WARNING)
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        self._reporter.warn(" ".join(record.getMessage().split()))


def _bars() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        redirect_stdout=False,
        redirect_stderr=False,
    )
