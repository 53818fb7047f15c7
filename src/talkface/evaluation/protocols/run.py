"""Entry points of ``talkface evaluate``: generate and score a validation list, or score pairs of files."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from talkface.errors import InvalidOption, TalkfaceError
from talkface.evaluation.judges import sync_judges
from talkface.evaluation.protocols.animate import evaluate_animate
from talkface.evaluation.protocols.clips import Clip, same_names
from talkface.evaluation.protocols.dub import evaluate_dub
from talkface.evaluation.protocols.fill import evaluate_fill
from talkface.evaluation.protocols.imagine import evaluate_imagine
from talkface.evaluation.protocols.pair import PairScorer
from talkface.evaluation.protocols.request import Request, counted, leaving_out
from talkface.evaluation.protocols.scores import Scores, write_single
from talkface.evaluation.tracking import track_file

SYSTEMS: dict[str, Callable[[Request], dict[str, Any]]] = {
    "animate": evaluate_animate,
    "dub": evaluate_dub,
    "imagine": evaluate_imagine,
    "fill": evaluate_fill,
}


def evaluate_system(
    system: str,
    data: Path,
    output: Path,
    *,
    split: str = "val",
    limit: int | None = None,
    seed: int = 0,
    syncnet: Path | None = None,
    models: Path | None = None,
    renderer: str = "auto",
    without: Sequence[str] = (),
) -> dict[str, Any]:
    """Generate videos from every clip of a split, score them, write a report.

    Args:
        system: "animate" (from the clip's first frame and sound), "dub" (from the clip and its own sound,
            and from the clip and another one's sound), "imagine" (from the clip's sound alone) or "fill"
            (from the clip with its face hidden, its own sound and another frame's face).
        data: What ``talkface prepare`` wrote, or a folder of talking-face videos, which are then tracked.
        output: report.json, report.html, clips.csv, sheets/, videos/ go here; videos already there are scored
            as they are.
        split: "val" or "train".
        limit: At most so many clips, spread over the list.
        seed: Seed of the generated videos, for "animate", "imagine" and "fill".
        syncnet: File with SyncNet's original weights, for "dub".
        models: Folder of models to use; what it lacks is taken from those shipped.
        renderer: For "imagine": "auto", "warp" or "diffusion".
        without: Parts to leave out, to see what they are worth. "imagine": "tia", "texture", "restorer", and
            with the renderer "diffusion" also "reference", "mba", "before". "fill": "context", "over_time",
            "reference", "detail", "matte", "stage2". "animate" and "dub" have none.

    Returns:
        What report.json holds.

    Raises:
        InvalidOption: There is no such system, it has no such option, or nothing of a name in ``without`` to
            leave out.
        UnreadableMedia: There is nothing to evaluate on.
        ModelUnavailable: A model is missing.
    """
    if system not in SYSTEMS:
        raise InvalidOption(f"system is {system!r}; choose animate, dub, imagine or fill")
    if renderer != "auto" and system != "imagine":
        raise InvalidOption(f"renderer is an option of imagine; leave it out for {system}")
    if syncnet and system != "dub":
        raise InvalidOption(f"syncnet scores dub, and pairs of files; leave it out for {system}")
    request = Request(data=Path(data), output=Path(output), split=split, limit=limit, seed=seed)
    parts = tuple(without)
    return SYSTEMS[system](replace(request, syncnet=syncnet, models=models, renderer=renderer, without=parts))


def evaluate_pairs(
    real: Path, generated: Path, output: Path, *, syncnet: Path | None = None
) -> dict[str, Any]:
    """Score generated videos beside real ones: two files, or two folders of files of the same names.

    Args:
        real: The real videos.
        generated: What a tool made of them.
        output: report.json, report.html, clips.csv and sheets/ go here.
        syncnet: File with SyncNet's original weights, for its LSE-D and LSE-C.

    Returns:
        What report.json holds.

    Raises:
        UnreadableMedia: There is nothing to compare.
        TalkfaceError: The only pair cannot be scored; of several, what cannot is left out.
        ModelUnavailable: ``syncnet`` does not hold these weights.
    """
    pairs, scorer = same_names(Path(real), Path(generated)), PairScorer(sync_judges(syncnet))
    for true, made in counted(pairs, lambda pair: pair[1].name):
        with leaving_out(made.name, but=(TalkfaceError,) if len(pairs) == 1 else ()):
            scorer("pairs", Clip(made.stem, "pairs", true, track_file(true, scorer.tracker)), made)
    settings = {"system": "pairs"} | scorer.protocol()
    return write_single(Path(output), settings, scorer.tests.get("pairs", Scores()), {})
