"""Compares models trained on a borrowed GPU with the shipped ones, and installs what is better.

Both are measured on split "dev", on the CPU.

A model takes the shipped one's place when it is better and the models that it was trained over are in place,
too. A new face LDM is installed only together with new adapters, because the old ones were trained over the
old LDM.
"""

import logging
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from talkface.errors import InvalidOption
from talkface.hub import CARD, CONFIG, load_pretrained, save_pretrained
from talkface.training.gpu_results import join
from talkface.training.gpu_run import ROOT
from talkface.training.gpu_trainings import TRAININGS, Training
from talkface.training.task import Task

logger = logging.getLogger(__name__)

_OTHER_ITEMS = 12  # clips and portraits beside those of split "dev": tasks need some to be set up
_DRAWN_FACES = 64  # by which a face LDM is judged
_ON_LDM = ("imagineid-tia", "imagineid-sca", "tccp-video")
_BASE = ("face-diffusion", "imagineid-sca", "face-autoencoder", "face-restorer", "face-texture")


@dataclass
class ModelComparison:
    """How a new model compares with the shipped one.

    Attributes:
        model: its name.
        new, shipped: metrics of both; the shipped one's are empty where there is none to compare.
        better: whether the new one is.
        missing: models that would have to be installed together with it.
        installed: whether it was installed.
    """

    model: str
    new: dict[str, float]
    shipped: dict[str, float]
    better: bool
    missing: list[str] = field(default_factory=list)
    installed: bool = False

    def __str__(self) -> str:
        rows = [
            f"  {name}: {value:.5g}, shipped {self.shipped.get(name, float('nan')):.5g}"
            for name, value in self.new.items()
        ]
        state = "installed" if self.installed else "better" if self.better else "not better"
        needed = f"; needs, better and in the same run: {', '.join(self.missing)}" if self.missing else ""
        return "\n".join([f"{self.model}: {state}{needed}", *rows])


def collect(
    out: Path,
    pack: Path,
    weights: Path,
    tiny: bool = False,
    install: bool = True,
    also: Sequence[Path] = (),
    take: Sequence[str] = (),
    keep: Path | None = None,
) -> list[ModelComparison]:
    """Join the parts, check the models, judge them and install what is better.

    Args:
        out: folder that :func:`talkface.training.gpu_run.train` wrote.
        pack: what the models were trained on.
        weights: folder of the shipped models.
        tiny: whether this is a test, with fewer pictures.
        install: whether what is better replaces the shipped model.
        also: models that were trained here over the new ones, in folders of their names; they are installed
            with them.
        take: names of models that somebody has looked at and found better, whatever their metrics.
        keep: a folder that gets a copy of the models and of those that they were trained over, so that more
            can be trained over them here.

    Raises:
        InvalidOption: a part or a model is missing or damaged.
    """
    from talkface.data.unpack import unpack

    with tempfile.TemporaryDirectory() as folder:
        models, prepared = Path(folder) / "models", Path(folder) / "prepared"
        report = join(out, models)
        for model in also:
            shutil.copytree(model / "export" if (model / "export").is_dir() else model, models / model.name)
        unpack(pack, prepared, only="dev", most=_OTHER_ITEMS)
        verdicts = []
        for name, training in TRAININGS.items():
            if (models / training.model).is_dir() and name in report["trainings"]:
                logger.info("judging %s", training.model)
                verdicts.append(_judge(training, models, prepared, weights, tiny, out))
        verdicts += [_trained_here(model, models) for model in also]
        for verdict in verdicts:
            verdict.better = verdict.better or verdict.model in take
        find_missing(verdicts, weights)
        _compare_marks(verdicts, models, weights)
        if keep:
            shutil.copytree(_base(models, weights, prepared), keep, dirs_exist_ok=True)
            shutil.copytree(models, keep, dirs_exist_ok=True)
        for verdict in verdicts if install else ():
            if verdict.better and not verdict.missing:
                _install(verdict, models, weights, report)
        return verdicts


# -- judging -----------------------------------------------------------------------------------------


def _judge(
    training: Training, models: Path, prepared: Path, weights: Path, tiny: bool, out: Path
) -> ModelComparison:
    new, shipped = models / training.model, weights / training.model
    _check(new)
    if training.model == "face-diffusion":
        return _judge_faces(new, shipped, prepared, weights, 4 if tiny else _DRAWN_FACES, out)
    task, found = score(training, new, prepared, _base(models, weights, prepared), tiny)
    if not (shipped / CONFIG).is_file():
        return ModelComparison(training.model, found, {}, better=True)
    if _pixels(new) != _pixels(shipped):  # errors of pictures of two sizes cannot be compared
        return ModelComparison(training.model, found, {}, better=False)
    _, before = score(training, shipped, prepared, _base(weights, weights, prepared), tiny)
    gain = found[task.metric] - before[task.metric]
    better = gain > 0 if task.mode == "max" else gain < 0
    return ModelComparison(training.model, found, before, better)


def _pixels(model: Path) -> int | None:
    """Side of the pictures that a model draws, if its config tells."""
    sizes: dict[str, Any] = load_pretrained(model)[0].get("model", {})
    return sizes.get("pixels")


def score(
    training: Training, model: Path, prepared: Path, base: Path, tiny: bool
) -> tuple[Task, dict[str, float]]:
    """The task of a training, and its metrics of a model's weights on held-out people.

    Args:
        training: which.
        model: directory of the weights.
        prepared: the data.
        base: directory of the face LDM that it was trained over.
        tiny: whether to take few pictures.
    """
    from talkface.training.run import from_dict, load_recipe

    few = tuple(s for s in training.tiny if not s.startswith("config.model")) if tiny else ()
    overrides = [*training.settings, *few, *training.judged]
    recipe = load_recipe(ROOT / "recipes" / f"{training.recipe}.yaml", overrides)
    told, state = load_pretrained(model)
    kind = type(recipe.config.model)
    sizes = told.get("model") or {f.name: told[f.name] for f in fields(kind) if f.name in told}
    built_over = {"base": str(base), "sca": str(base / "imagineid-sca")}
    known = {field.name for field in fields(recipe.config)}
    given = {key: value for key, value in built_over.items() if key in known}
    config = replace(recipe.config, model=from_dict(kind, sizes, "model"), **given)
    task = recipe.iterative()(config, prepared, recipe.trainer.seed, "cpu")
    name = next(iter(task.modules))
    try:
        task.modules[name].load_state_dict(state)
    except RuntimeError as error:
        raise InvalidOption(f"{model.name} has not the shapes that its config tells") from error
    for module in task.modules.values():
        module.eval()
    return task, {key: float(value) for key, value in task.validate().items()}


def _base(first: Path, weights: Path, prepared: Path) -> Path:
    """A directory of what adapters are trained over: face LDM and SCA of ``first``, or the shipped ones."""
    folder = prepared / ("base-shipped" if first == weights else "base-new")
    folder.mkdir(exist_ok=True)
    for name in _BASE:
        place = first if (first / name).is_dir() else weights
        if (place / name).is_dir() and not (folder / name).exists():
            (folder / name).symlink_to((place / name).resolve())
    return folder


def _judge_faces(
    new: Path, shipped: Path, prepared: Path, weights: Path, count: int, out: Path
) -> ModelComparison:
    """Judge a face LDM by the distance of drawn faces from real ones, measured by two extractors.

    Sheets of the drawn faces are left in ``out``, to be looked at.
    """
    from talkface.data.attributes import portrait_attributes
    from talkface.data.faces import held_out, portraits
    from talkface.data.manifest import Manifest
    from talkface.diffusion.base import Base
    from talkface.diffusion.model import FaceDiffusion
    from talkface.evaluation.protocols.portraits import distances, draw_faces, extractors, sheet
    from talkface.face.model import FaceModel

    if not extractors():
        raise InvalidOption('faces are judged by extractors that are missing: pip install -e ".[eval]"')
    manifest = Manifest.load(prepared)
    album = portraits(manifest)
    real, known = held_out(album, len(album), "dev"), portrait_attributes(manifest, album)
    people = held_out(album, count, "dev")
    base = Base.from_pretrained(str(_base(weights, weights, prepared)))
    warp = FaceModel.from_pretrained().mesh_warp()
    found = []
    for name, place in (("new", new), ("shipped", shipped)):
        drafts, finished = draw_faces(FaceDiffusion.from_pretrained(str(place)), base, people, known, warp)
        figures = distances(finished, people, real)
        figures |= {f"{key}_drafts": value for key, value in distances(drafts, people, real).items()}
        found.append(figures)
        _save(out / f"faces-{name}.png", sheet(finished))
    told = [key for key in found[0] if not key.endswith("_drafts")]
    better = all(found[0][key] < found[1][key] for key in told)
    return ModelComparison("face-diffusion", found[0], found[1], better)


def _save(path: Path, image: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(image).save(path)


def _check(model: Path) -> None:
    """Load a model, which compares its SHA-256 with its config's; refuse numbers that are not finite."""
    _, state = load_pretrained(model)
    broken = [name for name, tensor in state.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise InvalidOption(f"{model.name} holds numbers that are not finite, in {broken[0]}")


def _trained_here(model: Path, models: Path) -> ModelComparison:
    """A model that was trained here over the new face LDM: it is installed if that is."""
    from talkface.diffusion.model import FaceDiffusion
    from talkface.nn.marks import weights_mark

    told, _ = load_pretrained(models / model.name)
    if not (models / "face-diffusion").is_dir():
        raise InvalidOption(f"{model} was trained over a face-diffusion that did not come back")
    mark = weights_mark(FaceDiffusion.from_pretrained(str(models / "face-diffusion")))
    if told.get("built_on", {}).get("base") != mark:
        raise InvalidOption(f"{model} was not trained over the face-diffusion that came back")
    return ModelComparison(model.name, told["metrics"], {}, better=True)


def find_missing(verdicts: list[ModelComparison], weights: Path) -> None:
    """Write into verdicts which models each better one would have to be installed with.

    A face LDM needs every adapter of the shipped one, trained anew and better; an adapter that was trained
    over a face LDM that is not installed cannot be used.
    """
    better = {verdict.model for verdict in verdicts if verdict.better}
    ldm = next((verdict for verdict in verdicts if verdict.model == "face-diffusion"), None)
    if ldm is None:
        return
    if ldm.better:
        ldm.missing = [name for name in _ON_LDM if (weights / name).is_dir() and name not in better]
    for verdict in verdicts:
        if verdict.model in _ON_LDM and verdict.better and (ldm.missing or not ldm.better):
            verdict.missing = ["face-diffusion"]


def _compare_marks(verdicts: list[ModelComparison], models: Path, weights: Path) -> None:
    """Do not install adapters that were trained over another face LDM than the one that will be there."""
    from talkface.diffusion.model import FaceDiffusion
    from talkface.nn.marks import weights_mark

    going = any(v.model == "face-diffusion" and v.better and not v.missing for v in verdicts)
    place = (models if going else weights) / "face-diffusion"
    adapters = [v for v in verdicts if v.model in _ON_LDM and v.better and not v.missing]
    mark = weights_mark(FaceDiffusion.from_pretrained(str(place))) if adapters else ""
    for verdict in adapters:
        if load_pretrained(models / verdict.model)[0]["built_on"]["base"] != mark:
            verdict.missing = ["face-diffusion"]


# -- installing --------------------------------------------------------------------------------------


def _install(verdict: ModelComparison, models: Path, weights: Path, report: dict[str, Any]) -> None:
    config, state = load_pretrained(models / verdict.model)
    config["metrics"] = verdict.new
    target = weights / verdict.model
    old = (target / CARD).read_text() if (target / CARD).is_file() else f"---\n---\n# {verdict.model}\n"
    save_pretrained(target, config, state, renewed_card(old, report, verdict))
    verdict.installed = True


def renewed_card(old: str, report: dict[str, Any], verdict: ModelComparison) -> str:
    """A model's card with a new training and new metrics; what it says of data and limits stays."""
    told: dict[str, Any] = next((t for t in report["trainings"].values() if t["model"] == verdict.model), {})
    recipe = next((t.recipe for t in TRAININGS.values() if t.model == verdict.model), verdict.model)
    where = f"On {told['machine']}" if "machine" in told else "Here, over the face LDM that came back"
    how = (
        f"## Training\n{where}, {told.get('seconds', 0):.0f} s, "
        f"{told.get('steps', 0)} steps of {told.get('batch', 0)}:\n\n```\n"
        f"talkface train recipes/{recipe}.yaml --data prepared\n```\n\n"
        "by `scripts/gpu.py`, as docs/gpu.md tells.\n"
    )
    rows = [
        f"| {name} | {value:.4g} | {verdict.shipped.get(name, float('nan')):.4g} |"
        for name, value in verdict.new.items()
    ]
    table = "\n".join(["| figure | value | of the one before |", "|---|---|---|", *rows])
    measured = (
        "## Metrics\nPeople of split `dev`, who also chose the checkpoint; the one before may have seen "
        f"some of them.\n\n{table}\n"
    )
    for title, text in (("Training", how), ("Metrics", measured)):
        before, found, after = old.partition(f"## {title}\n")
        rest = after[after.index("\n## ") :] if "\n## " in after else ""
        old = f"{before}{text}{rest}" if found else f"{old.rstrip()}\n\n{text}"
    return old
