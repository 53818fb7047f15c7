"""Models of this project: bundled with the package, in a directory, or on the hub.

Each is a directory of ``config.json``, ``model.safetensors`` and ``MODEL_CARD.md``; nothing is pickled.
"""

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from talkface._version import __version__
from talkface.errors import ModelUnavailable
from talkface.hub.files import one_line, write_atomically

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    Module = TypeVar("Module", bound=nn.Module)

COMPACT = "compact"
"""The preset that comes with the package."""
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "MODEL_CARD.md"
# The variable names another directory with the same layout, for trainings that build on each other's weights.
_BUNDLED = Path(os.environ.get("TALKFACE_WEIGHTS") or Path(__file__).parents[1] / "weights")


def save_pretrained(
    directory: str | Path,
    config: Mapping[str, Any],
    state: Mapping[str, "Tensor"],
    card: str | None = None,
    *,
    dtype: "torch.dtype | None" = None,
) -> None:
    """Write a model as ``config.json`` + ``model.safetensors`` (+ ``MODEL_CARD.md``).

    Args:
        directory: Where to; made if missing. Files of an earlier save are replaced one by one, atomically.
        config: What rebuilds the module: JSON values only.
        state: Tensors by name. Floating ones are stored as ``dtype``, others as they are.
        card: Text of the model card, with its YAML header (``license``, ``datasets``).
        dtype: float16 by default. A tensor with values that it cannot hold is stored as float32.
    """
    import torch
    from safetensors.torch import save

    dtype = dtype or torch.float16
    data = save({name: _stored(tensor, dtype) for name, tensor in state.items()}, metadata={"format": "pt"})
    marks = {"_talkface_version": __version__, "_sha256": hashlib.sha256(data).hexdigest()}
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / WEIGHTS, data)
    write_atomically(folder / CONFIG, (json.dumps({**config, **marks}, indent=2) + "\n").encode())
    if card is not None:
        write_atomically(folder / CARD, card.encode())


def _stored(tensor: "Tensor", dtype: "torch.dtype") -> "Tensor":
    tensor = tensor.detach().cpu().contiguous()
    if not tensor.is_floating_point():
        return tensor.clone()
    small = tensor.to(dtype)
    # Overflow would silently turn a weight into infinity.
    return small if bool(small.isfinite().all()) else tensor.float()


def load_pretrained(
    name_or_path: str | Path, *, subfolder: str | None = None, revision: str | None = None
) -> tuple[dict[str, Any], dict[str, "Tensor"]]:
    """Read a model that ``save_pretrained`` wrote.

    Args:
        name_or_path: A bundled id (``"thpad"``, ``"compact/thpad"``), a directory, or a hub id
            (``"owner/name"``).
        subfolder: Folder inside it.
        revision: Branch, tag or commit; of a hub id only.

    Returns:
        The config, and the tensors by name: floating ones in float32.

    Raises:
        ModelUnavailable: Nothing of that name can be found, or its files are damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    folder = _model_directory(str(name_or_path), subfolder, revision)
    config = _read_config(folder)
    try:
        data = (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise ModelUnavailable(f"the model in {folder} cannot be read: {one_line(error)}") from error
    expected = config.pop("_sha256", None)
    if expected and hashlib.sha256(data).hexdigest() != expected:
        raise ModelUnavailable(f"{folder / WEIGHTS} is damaged: its SHA-256 is not {expected}")
    try:
        state = load(data)
    except SafetensorError as error:
        raise ModelUnavailable(f"{folder / WEIGHTS} is damaged: {one_line(error)}") from error
    config.pop("_talkface_version", None)
    return config, {name: t.float() if t.is_floating_point() else t for name, t in state.items()}


def pretrained_config(name_or_path: str | Path) -> dict[str, Any]:
    """The config of a model that ``save_pretrained`` wrote, without reading its weights.

    Raises:
        ModelUnavailable: Nothing of that name can be found, or its config is damaged.
    """
    return _read_config(_model_directory(str(name_or_path), None, None))


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"the model in {folder} cannot be read: {one_line(error)}") from error
    return config


def build_pretrained(
    module: "Callable[[Any], Module]", config: Callable[..., Any], name_or_path: str | Path
) -> "Module":
    """A model of a class, with the sizes and weights of :func:`load_pretrained`, in evaluation mode.

    Raises:
        ModelUnavailable: As there.
    """
    settings, state = load_pretrained(name_or_path)
    told = settings.get("model")
    if not isinstance(told, dict):
        raise ModelUnavailable(f"{name_or_path} is another kind of model: its {CONFIG} has no sizes")
    sizes = {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}
    try:
        with _without_initialisation():
            model = module(config(**sizes))
        model.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise ModelUnavailable(f"{name_or_path} is another kind of model: {one_line(error)[:120]}") from error
    return model.eval()


@contextmanager
def _without_initialisation() -> Iterator[None]:
    """Leave the weights of new layers uninitialised: drawing what is replaced at once is slow."""
    from torch.overrides import TorchFunctionMode

    class WithoutInitialisation(TorchFunctionMode):
        def __torch_function__(
            self,
            func: Callable[..., object],
            types: Collection[type],
            args: tuple[object, ...] = (),
            kwargs: Mapping[str, object] | None = None,
        ) -> object:
            named = kwargs or {}
            if getattr(func, "__module__", "") == "torch.nn.init":
                return args[0] if args else named["tensor"]
            return func(*args, **named)

    with WithoutInitialisation():
        yield


def find_pretrained(place: str, name: str) -> str | None:
    """What :func:`load_pretrained` takes for a part of a preset or of a directory.

    Args:
        place: A preset, such as ``"compact"``, or a directory of models.
        name: The part: the model's directory inside it.

    Returns:
        The id or path, or None if there is no such part.
    """
    preset = (_BUNDLED / place).parent == _BUNDLED
    source = name if preset else str(Path(place) / name)
    folder = _BUNDLED / place / name if preset else Path(source)
    return source if (folder / CONFIG).is_file() else None


def bundled_directory(name: str) -> Path:
    """The directory of a bundled model, whether it is there or not."""
    return _BUNDLED / "compact" / name


def _model_directory(name: str, subfolder: str | None, revision: str | None) -> Path:
    """The directory of a bundled model, else a local one, else one of the hub."""
    inside = subfolder or ""
    for folder in (_BUNDLED / name / inside, _BUNDLED / "compact" / name / inside, Path(name) / inside):
        if (folder / CONFIG).is_file():
            return folder
    # A hub id is "owner/name"; anything else was meant as a path.
    if name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).exists():
        return _hub_directory(name, inside, revision)
    known = ", ".join(model.id for model in bundled_models())
    raise ModelUnavailable(f"{name!r} is neither a directory with a {CONFIG} nor one of: {known or 'none'}")


def _hub_directory(repository: str, inside: str, revision: str | None) -> Path:
    patterns = [f"{inside}/{name}".lstrip("/") for name in (CONFIG, WEIGHTS, CARD)]
    return hub_snapshot(repository, patterns, revision) / inside


def hub_snapshot(repository: str, patterns: list[str], revision: str | None = None) -> Path:
    """Files of a repository of the hub that match patterns, in a directory of its client's cache.

    Raises:
        ModelUnavailable: The hub's client is not installed, or gave nothing.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ModelUnavailable(
            f"no model at {repository!r} on this machine; to look on the hub: pip install huggingface_hub"
        ) from error
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the hub's client raises errors of several libraries
        raise ModelUnavailable(f"the hub gave no model {repository!r}: {one_line(error)}") from error


@dataclass(frozen=True)
class BundledModel:
    """A model inside the package: its id, licence, training data and size in bytes."""

    id: str
    licence: str
    data: str
    size: int


def bundled_models() -> list[BundledModel]:
    """The models that come with the package."""
    return [_bundled(config.parent) for config in sorted(_BUNDLED.glob(f"*/*/{CONFIG}"))]


def _bundled(folder: Path) -> BundledModel:
    import yaml

    card = folder / CARD
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    header = yaml.safe_load(text.split("---")[1]) if text.startswith("---") else {}
    data = header.get("datasets", "unknown")
    return BundledModel(
        id=str(folder.relative_to(_BUNDLED)),
        licence=str(header.get("license_name") or header.get("license", "unknown")),
        data=", ".join(map(str, data)) if isinstance(data, list) else str(data),
        size=sum(file.stat().st_size for file in folder.iterdir()),
    )
