"""``talkface evaluate``: generate and score a validation list, or score pairs of files."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from talkface.errors import InvalidOption, TalkfaceError
from talkface.evaluation import report
from talkface.evaluation.figures.performance import track_file
from talkface.evaluation.judges.expert import experts
from talkface.evaluation.protocols.animate import evaluate_animate
from talkface.evaluation.protocols.clips import Clip, same_names
from talkface.evaluation.protocols.dub import evaluate_dub
from talkface.evaluation.protocols.fill import evaluate_fill
from talkface.evaluation.protocols.imagine import evaluate_imagine
from talkface.evaluation.protocols.pair import PairScorer
from talkface.evaluation.protocols.scores import Scores

logger = logging.getLogger(__name__)


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
        data: what ``talkface prepare`` wrote, or a folder of talking-face videos (tracked on the way).
        output: report.json, report.html, clips.csv, sheets/, videos/ go here; videos already there are scored
            as they are.
        split: "val" or "train".
        limit: at most so many clips, spread over the list.
        seed: seed of the generated videos, of "animate", "imagine" and "fill".
        syncnet: file with SyncNet's original weights, of "dub".
        models: folder of the models to use, of "dub", "imagine" and "fill"; by default those shipped.
        renderer: of "imagine": "auto", "warp" or "diffusion".
        without: of "imagine" and "fill": parts to leave out, to see what they are worth.

    Returns:
        What report.json holds.

    Raises:
        InvalidOption, UnreadableMedia, ModelUnavailable.
    """
    data, output = Path(data), Path(output)
    if system == "animate":
        return evaluate_animate(data, output, split=split, limit=limit, seed=seed)
    if system == "dub":
        return evaluate_dub(data, output, split=split, limit=limit, syncnet=syncnet, models=models)
    if system == "imagine":
        return evaluate_imagine(
            data,
            output,
            split=split,
            limit=limit,
            seed=seed,
            renderer=renderer,
            models=models,
            without=without,
        )
    if system == "fill":
        return evaluate_fill(
            data, output, split=split, limit=limit, seed=seed, models=models, without=without
        )
    raise InvalidOption(f"system is {system!r}; choose animate, dub, imagine or fill")


def evaluate_pairs(
    real: Path, generated: Path, output: Path, *, syncnet: Path | None = None
) -> dict[str, Any]:
    """Score generated videos beside real ones: two files, or two folders of files of the same names.

    Args:
        real: the real videos.
        generated: what a tool made of them.
        output: report.json, report.html, clips.csv and sheets/ go here.
        syncnet: file with SyncNet's original weights, for its figures beside those of the own expert.

    Returns:
        What report.json holds.

    Raises:
        UnreadableMedia: there is nothing to compare.
        TalkfaceError: the only pair cannot be scored; of several, what cannot is left out.
        ModelUnavailable: ``syncnet`` does not hold these weights.
    """
    pairs, scorer = same_names(Path(real), Path(generated)), PairScorer(experts(syncnet))
    for true, made in pairs:
        logger.info("%s", made.name)
        try:
            scorer("pairs", Clip(made.stem, "pairs", true, track_file(true, scorer.tracker)), made)
        except TalkfaceError as error:
            if len(pairs) == 1:
                raise
            logger.warning("%s: left out: %s", made.name, error)
    scores = scorer.tests.get("pairs", Scores())
    result = report.headed({"system": "pairs"} | scorer.protocol(), [row["name"] for row in scores.rows])
    result["groups"] = scores.groups()
    result |= scores.strangers()
    report.write(Path(output), result, scores.rows, {"sheet": scores.strips})
    return result
