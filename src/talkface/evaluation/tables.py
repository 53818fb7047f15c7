"""Figures as tables of text, for the terminal and the page."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """A figure in the tables.

    Attributes:
        name: Its key in the report; a dot leads into a dictionary.
        better: Which way is better: up, down, or towards a number.
        meaning: What it is.
        digits: After the decimal point.
    """

    name: str
    better: str
    meaning: str
    digits: int = 3


_SYNC = (
    Figure("aperture_r", "↑", "correlation of the mouth's opening with the real lips of the same sound"),
    Figure("aperture_r_chance", "", "the same with other clips' lips"),
    Figure("source_r", "↓", "the same with the source's own lips, which say something else"),
    Figure("width_r", "↑", "correlation of the mouth's width"),
    Figure("jaw_r", "↑", "correlation of the jaw"),
    Figure("opening_ratio", "→1", "spread of the opening, generated over real"),
    Figure("offset_frames", "→0", "lag of the lips by their correlation, frames; positive: late", 0),
    Figure("silent_opening", "→0", "opening where nobody speaks, eye distances"),
    Figure("real_silent_opening", "", "the same of the real video"),
    Figure("mouth_lmd", "↓", "M-LMD: distance of mouth points, % of the eye distance", 2),
)


def _expert(name: str, whose: str) -> tuple[Figure, ...]:
    return (
        Figure(f"{name}_d", "↓", f"LSE-D, distance of picture and sound, {whose}"),
        Figure(f"{name}_c", "↑", f"LSE-C, confidence, {whose}"),
        Figure(f"{name}_offset", "→0", f"shift at which picture and sound are closest, frames, {whose}", 1),
        Figure(f"real_{name}_d", "", "LSE-D of the real video"),
        Figure(f"real_{name}_c", "", "LSE-C of the real video"),
        Figure(f"ratio_to_real.{name}_d", "↓", "LSE-D, generated over real"),
        Figure(f"ratio_to_real.{name}_c", "↑", "LSE-C, generated over real"),
        Figure(f"real_{name}_accuracy", "", "how often the expert finds the right sound of real pictures"),
    )


_PICTURE = (
    Figure("mouth_psnr", "↑", "PSNR in the mouth box, dB", 2),
    Figure("mouth_ssim", "↑", "SSIM in the mouth box"),
    Figure("frame_psnr", "↑", "PSNR of the whole frame, dB", 2),
    Figure("outside_difference", "↓", "mean difference outside the redrawn region, levels of 255"),
    Figure("seam", "→1", "jumps across the redrawn region's border over those of the real frame"),
    Figure(
        "flicker",
        "→1",
        "change that motion does not explain (dub: around the mouth; imagine: skin), over real",
    ),
    Figure("mouth_sharpness", "→1", "Laplacian around the lips, generated over real"),
    Figure("csim", "↑", "cosine of face descriptors, generated and real"),
    Figure("face_distance", "↓", "distance of face descriptors; below 0.6 is the same person"),
    Figure("fd_dlib128", "↓", "Fréchet distance of face descriptors", 5),
    Figure("face_found", "↑", "share of frames with a face"),
)
_MOTION = (
    Figure("fid_fm", "↓", "Fréchet distance of motion coefficients", 2),
    Figure("fid_dfm", "↓", "Fréchet distance of their changes", 2),
    Figure("snd", "↓", "sum of the two", 2),
    Figure("ratio_to_real.pose_variance", "→1", "variance of the head's rotation, generated over real"),
    Figure("ratio_to_real.gaze_std", "→1", "spread of the gaze, generated over real"),
    Figure("ratio_to_real.jitter", "→1", "third difference of mesh points, generated over real"),
    Figure("blinks_per_minute", "", "blinks a minute", 1),
    Figure("real_blinks_per_minute", "", "blinks a minute of the real video", 1),
    Figure("blink_depth", "", "lid gap in blinks"),
)
_IMAGINED = (
    Figure("mesh_adherence", "↓", "distance of the face from the frame's mesh, of the eye distance"),
    Figure("csim_within", "↑", "cosine of face descriptors, first frame and others"),
    Figure("csim_within_mobileface", "↑", "the same by MobileFace, who has strangers near 0"),
    Figure("background_drift", "↓", "difference from the first frame beside a still head, levels of 255"),
    Figure("sex_heard", "↑", "share of voices whose sex is told"),
    Figure("sex_shown", "↑", "share of portraits that show it"),
    Figure("age_group_heard", "↑", "share of voices whose age group of three is told"),
    Figure("age_group_shown", "↑", "share of portraits that show it"),
    Figure("age_error_heard", "↓", "years", 1),
    Figure("r1", "↑", "share of voices to whose speaker's face the voice is closest"),
    Figure("r5", "↑", "share of which it is among the five closest"),
    Figure("r10", "↑", "share of which it is among the ten closest"),
    Figure("csim_between_seeds", "↓", "cosine of face descriptors of two portraits of one voice"),
    Figure("csim_between_seeds_centred", "↓", "the same, from the mean of real people"),
    Figure("csim_between_seeds_mobileface", "↓", "cosine by MobileFace, who has strangers near 0"),
    Figure("portrait_adherence", "↓", "distance of portraits from their mesh, of the eye distance"),
    Figure("tries", "", "portraits drawn to choose from", 1),
    Figure("emotion_heard", "↑", "share of acted sentences whose mood is heard"),
    Figure("csim_kept", "", "cosine of face descriptors, after the exchange with before"),
    Figure("csim_kept_mobileface", "", "the same by MobileFace, who has strangers near 0"),
    Figure("opening_kept", "", "correlation of the mouth's opening"),
    Figure("expression_moved", "", "change of the mean expression, in spreads of its coefficients"),
    Figure("aperture_r_before", "", "correlation with the real lips, before the exchange"),
    Figure("aperture_r_after", "", "after it"),
)
_FILLED = (
    Figure(
        "landmark_error", "↓", "distance of stage 1's landmarks from the hidden face, of the eye distance"
    ),
    Figure("pose_error", "↓", "angle between stage 1's pose and the hidden face's, degrees", 1),
    Figure("hole_psnr", "↑", "PSNR inside the hole, dB", 2),
    Figure("csim_mobileface", "↑", "cosine by MobileFace, generated and real; strangers near 0"),
    Figure("border", "→1", "jumps across the hole's border over those of the real frame"),
    Figure("consistency", "→1", "change of the skin that motion does not explain, generated over real"),
)
_EXPERTS = _expert("lse", "own expert") + _expert("syncnet_lse", "SyncNet")


@dataclass(frozen=True)
class Table:
    """Cells of text.

    Attributes:
        title: Above it.
        columns: Heads of the columns after the first two, which are name and direction.
        rows: The figure and its cells.
    """

    title: str
    columns: list[str]
    rows: list[tuple[Figure, list[str]]]


def tables_of(result: dict[str, Any]) -> list[Table]:
    """The tables of a report: one, or one for each test; a column for each group of clips."""
    if "tests" in result:  # dubbed heads move as they did in the source
        return [
            _table(test, part["groups"], _SYNC + _EXPERTS + _FILLED + _PICTURE + _IMAGINED)
            for test, part in result["tests"].items()
        ]
    return [_table(result["settings"]["system"], result["groups"], _SYNC + _EXPERTS + _PICTURE + _MOTION)]


def _table(title: str, groups: dict[str, dict[str, Any]], figures: tuple[Figure, ...]) -> Table:
    # A single group is all there is.
    shown = groups if len(groups) > 2 else dict(list(groups.items())[:1])
    counts = [
        max(
            (
                round(value["count"])
                for value in group.values()
                if isinstance(value, dict) and "count" in value
            ),
            default=0,
        )
        for group in shown.values()
    ]
    columns = [f"{name} ({count})" for name, count in zip(shown, counts, strict=True)]
    rows = [(figure, [_cell(group, figure) for group in shown.values()]) for figure in figures]
    return Table(title, columns, [row for row in rows if any(row[1])])


def _cell(group: dict[str, Any], figure: Figure) -> str:
    """Mean and interval, or the number; empty if there is none."""
    value: Any = group
    for key in figure.name.split("."):
        value = value.get(key, {}) if isinstance(value, dict) else {}
    number = lambda x: f"{x:.{figure.digits}f}"  # noqa: E731
    if not isinstance(value, dict):
        return number(value) if value == value else ""
    if "mean" not in value:
        return ""
    interval = f" [{number(value['low'])}, {number(value['high'])}]" if "low" in value else ""
    return number(value["mean"]) + interval
