"""Recipes: a recipe is a YAML file with the name of a task, its settings, and the trainer's."""

import dataclasses
import importlib
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from talkface.errors import InvalidOption, UnreadableMedia
from talkface.options import resolve_device
from talkface.training.task import ClosedFormTask, Task
from talkface.training.trainer import TrainerConfig, fit

SAVED_RECIPE = "recipe.yaml"
"""The recipe of a run in its folder, with every setting."""

Built = TypeVar("Built")

#: What a recipe's ``task`` may be.
TASKS = {
    "face": "talkface.training.tasks.face_model:FaceModelTask",
    "speech": "talkface.training.tasks.speech_student:StudentTask",
    "motion": "talkface.training.tasks.thpad_motion:MotionTask",
    "lips": "talkface.training.tasks.thpad_lips:LipsTask",
    "sync": "talkface.training.tasks.thpad_sync:SyncTask",
    "prior": "talkface.training.tasks.thpad_prior:PriorTask",
    "refiner": "talkface.training.tasks.thpad_refiner:RefinerTask",
    "sync_expert": "talkface.training.tasks.g4g_experts:ExpertTask",
    "alignment": "talkface.training.tasks.g4g_alignment:AlignmentTask",
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


@dataclass(frozen=True)
class Recipe:
    """A recipe that was read: which task, with which settings, trained how.

    Attributes:
        task: a key of :data:`TASKS`.
        task_class: what it stands for.
        config: an instance of the class's ``Config``.
        trainer: settings of the trainer; a task in closed form has no use for them.
    """

    task: str
    task_class: type[Task] | type[ClosedFormTask]
    config: Any
    trainer: TrainerConfig

    def iterative(self) -> type[Task]:
        """The task's class, of a recipe whose task takes steps.

        Raises:
            InvalidOption: it is solved in closed form.
        """
        if not issubclass(self.task_class, Task):
            raise InvalidOption(f"task {self.task} is solved in closed form: it takes no steps")
        return self.task_class

    def text(self) -> str:
        """The recipe with every setting, as YAML: :func:`load_recipe` reads it again."""
        tree = {"task": self.task, "config": to_dict(self.config), "trainer": to_dict(self.trainer)}
        return yaml.safe_dump(tree, sort_keys=False)


def train_recipe(
    recipe: Path, data: Path, output: Path | None = None, overrides: Sequence[str] = ()
) -> dict[str, float]:
    """Run a recipe on a prepared folder.

    The folder of the run gets ``recipe.yaml``: the recipe with every setting, which can be run as it is.

    Args:
        recipe: YAML with ``task``, ``config`` and ``trainer``.
        data: what ``talkface prepare`` wrote.
        output: folder of checkpoints, logs and the exported model; a run that was interrupted goes on there.
            By default runs/<recipe>, and for the ``recipe.yaml`` of a run the folder of that run.
        overrides: ``trainer.minutes=5`` and the like.

    Returns:
        The best metrics.
    """
    loaded = load_recipe(recipe, overrides)
    output = Path(output or _default_output(Path(recipe)))
    output.mkdir(parents=True, exist_ok=True)
    (output / SAVED_RECIPE).write_text(loaded.text())
    trainer = loaded.trainer
    if issubclass(loaded.task_class, ClosedFormTask):
        return loaded.task_class(loaded.config, Path(data)).solve(output)
    device = str(resolve_device(trainer.device))
    return fit(loaded.iterative()(loaded.config, Path(data), trainer.seed, device), trainer, output)


def _default_output(recipe: Path) -> Path:
    return recipe.parent if recipe.name == SAVED_RECIPE else Path("runs") / recipe.stem


def load_recipe(recipe: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        recipe: YAML with ``task``, ``config`` and ``trainer``.
        overrides: ``trainer.minutes=5`` and the like.

    Raises:
        UnreadableMedia: no such file. InvalidOption: an unknown key or a value of the wrong kind.
    """
    path = Path(recipe)
    if not path.is_file():
        raise UnreadableMedia(f"{recipe} is not a recipe; the shipped ones are in recipes/")
    try:
        tree = yaml.safe_load(path.read_text()) or {}
    except (UnicodeDecodeError, yaml.YAMLError):
        tree = None
    if not isinstance(tree, dict):
        raise UnreadableMedia(f"{recipe} is not a recipe; the shipped ones are in recipes/")
    for override in overrides:
        _override(tree, override)
    unknown, name = set(tree) - {"task", "config", "trainer"}, tree.get("task")
    if unknown or name not in TASKS:
        raise InvalidOption(
            f"{recipe}: unknown {', '.join(sorted(unknown)) or 'task'}; a recipe has task "
            f"({', '.join(TASKS)}), config and trainer"
        )
    kind = task_class(name)
    config: Any = from_dict(kind.Config, tree.get("config") or {}, "config")
    return Recipe(name, kind, config, from_dict(TrainerConfig, tree.get("trainer") or {}, "trainer"))


def task_class(name: str) -> type[Task] | type[ClosedFormTask]:
    """The class of a task, by its key in :data:`TASKS`."""
    module, kind = TASKS[name].split(":")
    found: type[Task] | type[ClosedFormTask] = getattr(importlib.import_module(module), kind)
    return found


def _override(tree: dict[str, Any], text: str) -> None:
    key, separator, value = text.partition("=")
    if not separator:
        raise InvalidOption(f"overrides: {text!r} is not key=value, for instance trainer.minutes=5")
    *parents, last = key.split(".")
    for parent in parents:
        if not isinstance(tree.get(parent), dict):
            tree[parent] = {}
        tree = tree[parent]
    tree[last] = yaml.safe_load(value)


def from_dict(kind: type[Built], values: object, where: str) -> Built:
    """Build a (nested) dataclass from plain values.

    Args:
        kind: the dataclass.
        values: a dict of its fields; what is left out keeps its default.
        where: the place of ``values`` in a recipe, for messages.

    Raises:
        InvalidOption: an unknown key or a value of the wrong kind, named with its place.
    """
    hints = typing.get_type_hints(kind)
    if not isinstance(values, dict):
        raise InvalidOption(f"{where}: unknown {values!r}; it may hold {', '.join(hints)}")
    unknown = ", ".join(sorted(set(values) - set(hints)))
    if unknown:
        raise InvalidOption(f"{where}: unknown {unknown}; it may hold {', '.join(hints)}")
    return kind(**{name: _value(hints[name], value, f"{where}.{name}") for name, value in values.items()})


def _value(kind: object, value: object, where: str) -> object:
    """A field's value of the kind that its annotation tells."""
    if value is None:
        return None
    if isinstance(kind, types.UnionType):
        kind = next(each for each in typing.get_args(kind) if each is not type(None))
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return from_dict(kind, value, where)
    if typing.get_origin(kind) is tuple:
        return _tuple(typing.get_args(kind), value, where)
    if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-4 as text
        except ValueError as error:
            raise InvalidOption(f"{where}: {value!r} is not a number") from error
    if kind is str and value is False:
        return "no"  # YAML reads the word as a truth value; it is a precision
    if isinstance(kind, type) and not isinstance(value, kind):
        raise InvalidOption(f"{where}: {value!r} should be {kind.__name__}")
    return value


def _tuple(kinds: tuple[object, ...], values: object, where: str) -> tuple[object, ...]:
    if not isinstance(values, (list, tuple)):
        raise InvalidOption(f"{where}: {values!r} should be a list")
    kinds = kinds[:1] * len(values) if kinds[-1] is Ellipsis else kinds
    if len(kinds) != len(values):
        raise InvalidOption(f"{where}: {values!r} should have {len(kinds)} entries")
    return tuple(_value(kind, value, where) for kind, value in zip(kinds, values, strict=True))


def to_dict(config: object) -> object:
    """Plain values of a (nested) dataclass, for YAML."""
    if dataclasses.is_dataclass(config):
        return {field.name: to_dict(getattr(config, field.name)) for field in dataclasses.fields(config)}
    return [to_dict(value) for value in config] if isinstance(config, tuple) else config
