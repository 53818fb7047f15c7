"""Recipes: a YAML file that is the serialised tree of a task's and the trainer's settings."""

import dataclasses
import importlib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from talkface.errors import InvalidOption, UnreadableMedia
from talkface.training.trainer import TrainerConfig, fit

#: What a recipe's ``task`` may be.
TASKS = {
    "face": "talkface.training.tasks.face_model:FaceModelTask",
    "speech": "talkface.training.tasks.speech_student:StudentTask",
    "motion": "talkface.training.tasks.thpad_motion:MotionTask",
    "lips": "talkface.training.tasks.thpad_lips:LipsTask",
    "sync": "talkface.training.tasks.thpad_sync:SyncTask",
    "prior": "talkface.training.tasks.thpad_motion:PriorTask",
    "refiner": "talkface.training.tasks.thpad_refiner:RefinerTask",
    "sync_expert": "talkface.training.tasks.g4g_experts:ExpertTask",
    "alignment": "talkface.training.tasks.g4g_generator:AlignmentTask",
    "generator": "talkface.training.tasks.g4g_generator:GeneratorTask",
    "face_texture": "talkface.training.tasks.face_texture:FaceTextureTask",
    "appearance": "talkface.training.tasks.face_appearance:AppearanceTask",
    "occlusion": "talkface.training.tasks.face_occlusion:OcclusionTask",
    "attributes": "talkface.training.tasks.face_attributes:AttributeTask",
    "autoencoder": "talkface.training.tasks.diffusion_autoencoder:AutoencoderTask",
    "diffusion": "talkface.training.tasks.diffusion_ldm:DiffusionTask",
    "distilled": "talkface.training.tasks.diffusion_distilled:DistilledTask",
    "restorer": "talkface.training.tasks.diffusion_restorer:RestorerTask",
    "critic": "talkface.training.tasks.diffusion_critic:CriticTask",
    "pad_identity": "talkface.training.tasks.imagineid_identity:IdentityTask",
    "pad_content": "talkface.training.tasks.imagineid_content:ContentTask",
    "pad_emotion": "talkface.training.tasks.imagineid_emotion:EmotionTask",
    "pad_joint": "talkface.training.tasks.imagineid_joint:JointTask",
    "tia": "talkface.training.tasks.imagineid_tia:TiaTask",
    "sca": "talkface.training.tasks.imagineid_sca:ScaTask",
    "mba": "talkface.training.tasks.imagineid_mba:MbaTask",
    "tccp_landmarks": "talkface.training.tasks.tccp_landmarks:LandmarkTask",
    "tccp_reading": "talkface.training.tasks.tccp_reading:ReadingTask",
    "tccp_video": "talkface.training.tasks.tccp_video:VideoTask",
}


def train_recipe(
    recipe: Path, data: Path, output: Path | None = None, overrides: Sequence[str] = ()
) -> dict[str, float]:
    """Run a recipe on a prepared folder.

    Args:
        recipe: YAML with ``task``, ``config`` and ``trainer``.
        data: what ``talkface prepare`` wrote.
        output: where checkpoints, logs and the exported model go; runs/<recipe> by default. Resumes from it.
        overrides: ``trainer.minutes=5`` and the like.

    Returns:
        The best metrics.
    """
    task_class, config, trainer = load_recipe(recipe, overrides)
    output = Path(output or Path("runs") / Path(recipe).stem)
    output.mkdir(parents=True, exist_ok=True)
    (output / "recipe.yaml").write_text(
        yaml.safe_dump({"config": to_dict(config), "trainer": to_dict(trainer)})
    )
    if hasattr(task_class, "solve"):  # closed form: nothing to iterate
        return task_class.solve(config, Path(data), output)
    device = "cpu" if trainer.device == "auto" and not _has_gpu() else trainer.device
    task = task_class(config, Path(data), trainer.seed, "cuda" if device == "auto" else device)
    return fit(task, trainer, output)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def load_recipe(recipe: Path, overrides: Sequence[str] = ()) -> tuple[Any, Any, TrainerConfig]:
    """The task's class, its settings and the trainer's.

    Raises:
        UnreadableMedia: no such file. InvalidOption: an unknown key or a value of the wrong kind.
    """
    path = Path(recipe)
    if not path.is_file():
        raise UnreadableMedia(f"{recipe} is not a recipe; the shipped ones are in recipes/")
    tree = yaml.safe_load(path.read_text()) or {}
    for override in overrides:
        _override(tree, override)
    unknown = set(tree) - {"system", "task", "config", "trainer"}
    if unknown or tree.get("task") not in TASKS:
        raise InvalidOption(
            f"{recipe}: unknown {', '.join(sorted(unknown)) or 'task'}; a recipe has task "
            f"({', '.join(TASKS)}), config and trainer"
        )
    module, name = TASKS[tree["task"]].split(":")
    task_class = getattr(importlib.import_module(module), name)
    config = from_dict(task_class.Config, tree.get("config") or {}, "config")
    return task_class, config, from_dict(TrainerConfig, tree.get("trainer") or {}, "trainer")


def _override(tree: dict[str, Any], text: str) -> None:
    key, separator, value = text.partition("=")
    if not separator:
        raise InvalidOption(f"--set {text}: write key=value, for instance trainer.minutes=5")
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[last] = yaml.safe_load(value)


def from_dict(kind: Any, values: Any, where: str) -> Any:
    """Build a (nested) dataclass from plain values.

    Raises:
        InvalidOption: an unknown key or a value of the wrong kind, named with its place.
    """
    kind = _without_none(kind)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        if not isinstance(values, dict) or set(values) - set(hints):
            unknown = (
                ", ".join(sorted(set(values) - set(hints))) if isinstance(values, dict) else repr(values)
            )
            raise InvalidOption(f"{where}: unknown {unknown}; it may hold {', '.join(hints)}")
        return kind(**{k: from_dict(hints[k], v, f"{where}.{k}") for k, v in values.items()})
    if typing.get_origin(kind) is tuple:
        kinds = typing.get_args(kind)
        kinds = kinds[:1] * len(values) if kinds[-1] is Ellipsis else kinds
        return tuple(from_dict(k, v, where) for k, v in zip(kinds, values, strict=True))
    if kind is float and isinstance(values, (int, str)) and not isinstance(values, bool):
        try:
            return float(values)  # YAML reads 1e-4 as text
        except ValueError as error:
            raise InvalidOption(f"{where}: {values!r} is not a number") from error
    if isinstance(kind, type) and values is not None and not isinstance(values, kind):
        raise InvalidOption(f"{where}: {values!r} should be {kind.__name__}")
    return values


def _without_none(kind: Any) -> Any:
    if isinstance(kind, types.UnionType):
        return next(arg for arg in typing.get_args(kind) if arg is not type(None))
    return kind


def to_dict(config: Any) -> Any:
    """Plain values of a (nested) dataclass, for YAML."""
    if dataclasses.is_dataclass(config):
        return {field.name: to_dict(getattr(config, field.name)) for field in dataclasses.fields(config)}
    return list(config) if isinstance(config, tuple) else config
