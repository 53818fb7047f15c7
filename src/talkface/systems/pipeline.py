"""What the pipelines of all systems share: their parts, where these come from, and checks of arguments."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

import torch

from talkface._version import __version__
from talkface.errors import AudioTooShort, InvalidOption, ModelUnavailable
from talkface.face.model import FaceModel
from talkface.face.tracker import FaceTracker
from talkface.hub import COMPACT, find_pretrained
from talkface.media.audio import AudioInfo, probe_audio
from talkface.media.source import SourceVideo, parse_time
from talkface.options import resolve_device, resolve_dtype, whole_seed
from talkface.output import Generation, check_takes, fingerprint_of
from talkface.performance.marks import check_together
from talkface.performance.model import DiffusionPrior, MotionModel
from talkface.rendering.refiner import Refiner
from talkface.speech.features import ContentEncoder, FeatureStream

logger = logging.getLogger(__name__)


def part(folder: str, kind: type) -> Any:  # noqa: ANN401 - a field has the type of its annotation
    """A field of :class:`Parts`: a network with its folder in a preset and in a directory of models."""
    return field(metadata={"folder": folder, "kind": kind})


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The networks of a pipeline, and the 3DMM; each system adds its own."""

    face: FaceModel = part("face", FaceModel)
    speech: ContentEncoder = part("speech", ContentEncoder)
    motion: MotionModel = part("thpad-motion", MotionModel)

    @classmethod
    def folders(cls) -> dict[str, tuple[str, Any]]:
        """Folder and class of each network, by its field."""
        told = {one.name: one.metadata for one in fields(cls) if one.metadata}
        return {name: (metadata["folder"], metadata["kind"]) for name, metadata in told.items()}

    @classmethod
    def load(cls, place: str, further: Sequence[str] = ()) -> dict[str, Any]:
        """The networks of a preset or a directory; those that a directory lacks are the shipped ones.

        Args:
            place: "compact" or a directory.
            further: folders that it may hold beside those of these networks.

        Raises:
            ModelUnavailable: There is no such directory, it holds none of them, one is damaged, or one was
                trained over others than these.
        """
        if place != COMPACT:
            check_directory(place, [*(folder for folder, _ in cls.folders().values()), *further])
        found = {n: find_pretrained(place, folder) or folder for n, (folder, _) in cls.folders().items()}
        parts = {name: kind.from_pretrained(found[name]) for name, (_, kind) in cls.folders().items()}
        if place != COMPACT:  # the shipped ones belong together
            check_together(found.values(), parts["face"], parts["speech"], parts["motion"])
        return parts

    @classmethod
    def debug(cls) -> dict[str, Any]:
        """Tiny random networks. The 3DMM, whose basis is no network, is the shipped one."""
        return {
            name: kind.from_pretrained(folder) if kind is FaceModel else kind.debug()
            for name, (folder, kind) in cls.folders().items()
        }


@dataclass(frozen=True, kw_only=True)
class PerformanceParts(Parts):
    """These, and what moves and draws a portrait: the prior of head, gaze and brows, and the refiner."""

    prior: DiffusionPrior = part("thpad-prior", DiffusionPrior)
    refiner: Refiner = part("thpad-refiner", Refiner)


AnyParts = TypeVar("AnyParts", bound=Parts)
AnyModule = TypeVar("AnyModule", bound=torch.nn.Module)


class Pipeline(Generic[AnyParts]):
    """Base of all pipelines: build one with :meth:`from_pretrained`, then call it.

    Args:
        parts: The networks.
        device: Where they run.
        dtype: In what they compute.
        name: The preset, or the directory that they came from.

    Attributes:
        system: Name of the system, for provenance.
        parts_type: What its networks are.
        tracking: How faces are tracked: arguments of :class:`~talkface.face.tracker.FaceTracker`.
        default_dtype: What ``from_pretrained`` computes in unless told.
        dtypes: What it may be told.
        face: The 3DMM.
        features: The content encoder's stream.
    """

    system: ClassVar[str]
    parts_type: ClassVar[type[Parts]]
    tracking: ClassVar[Mapping[str, Any]]
    default_dtype: ClassVar[str] = "auto"
    dtypes: ClassVar[tuple[str, ...]] = ("auto", "float32", "bfloat16")

    def __init__(
        self,
        parts: AnyParts,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        name: str = COMPACT,
    ) -> None:
        self.parts, self.device, self.dtype, self.name = parts, torch.device(device), dtype, name
        self.face = parts.face
        self._tracker: FaceTracker | None = None
        self.features = FeatureStream(parts.speech, device=self.device)
        self.set_up()

    def set_up(self) -> None:
        """Build what a call needs from the parts."""

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path = COMPACT, device: str = "auto", dtype: str | None = None
    ) -> Self:
        """Load the shipped models, or those of a directory in their place.

        Args:
            name_or_path: "compact", or a directory with folders as :meth:`Parts.folders` of
                :attr:`parts_type` tells; what it lacks is taken from the shipped models.
            device: "auto" takes a GPU when there is one.
            dtype: Of the networks' arithmetic: "float32", "bfloat16" or "auto" for the faster one; by default
                :attr:`default_dtype`.

        Raises:
            ModelUnavailable: There is no such directory, it holds none of the parts, one is damaged, or one
                was trained over others.
            InvalidOption: There is no such device or dtype.
        """
        place, target = str(name_or_path), resolve_device(device)
        return cls(cls.load_parts(place, target), target, cls.dtype_of(dtype, target), place)

    @classmethod
    def dtype_of(cls, dtype: str | None, device: torch.device) -> torch.dtype:
        """The type that the networks compute in.

        Raises:
            InvalidOption: They do not compute in it.
        """
        one_of("dtype", dtype or cls.default_dtype, cls.dtypes)
        return resolve_dtype(dtype or cls.default_dtype, device)

    def __call__(self, *args: Any, **options: Any) -> Generation[Any]:  # noqa: ANN401 - each verb has its own
        """Do what the verb does; the arguments are those of the function of the API."""
        raise NotImplementedError

    @classmethod
    def load_parts(cls, place: str, device: torch.device) -> AnyParts:
        """The parts of a preset or a directory."""
        return cast(AnyParts, cls.parts_type(**cls.parts_type.load(place)))

    @classmethod
    def debug(cls, device: str = "cpu", seed: int = 0) -> Self:
        """A pipeline of tiny random networks: the whole way from input to output, without meaning."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(cls.debug_parts(), device, torch.float32, "debug")

    @classmethod
    def debug_parts(cls) -> AnyParts:
        """Tiny random parts."""
        return cast(AnyParts, cls.parts_type(**cls.parts_type.debug()))

    @property
    def tracker(self) -> FaceTracker:
        """The face tracker, made when it is first needed."""
        if self._tracker is None:
            self._tracker = FaceTracker(**self.tracking)
        return self._tracker

    @property
    def origins(self) -> list[str]:
        """Where the networks came from: a preset, directories or hub ids."""
        return [self.name]

    def provenance(self) -> dict[str, str]:
        """What a video's metadata say of what made it."""
        names = dict.fromkeys(Path(origin).name for origin in self.origins)
        return {
            "synthetic": "true",
            "software": f"talkface {__version__}",
            "model": f"{self.system}-{'+'.join(names)}",
        }

    def fingerprint(self, files: Iterable[Path], *options: object) -> str:
        """Tells what frames are made from and how, for resuming: models, files and options."""
        models = [path for origin in self.origins for path in model_files(origin)]
        return fingerprint_of([*files, *models], self.origins, self.dtype, *options)


def check_directory(place: str, folders: Sequence[str]) -> None:
    """See to it that a directory of models holds some of the folders.

    Raises:
        ModelUnavailable: It does not.
    """
    if not Path(place).is_dir():
        raise ModelUnavailable(f"there is no directory {place} with models")
    if not any(find_pretrained(place, folder) for folder in folders):
        raise ModelUnavailable(f"{place} holds no models: it may have the folders {', '.join(folders)}")


def shaken(network: AnyModule) -> AnyModule:
    """A network whose weights are all a little random, those that begin at zero, too."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def model_files(origin: str) -> list[Path]:
    """The files of a directory of models; none of a preset, which the package's version tells."""
    return (
        sorted(path for path in Path(origin).glob("*/*") if path.is_file()) if Path(origin).is_dir() else []
    )


# -- arguments that several verbs take -------------------------------------------------------------


def seeds_of(seed: int, takes: int) -> list[int]:
    """The seeds of the takes: ``seed``, ``seed + 1``, ...

    Raises:
        InvalidOption: A seed is no whole number from 0, or there are no takes or too many.
    """
    return [whole_seed(seed + take) for take in range(check_takes(takes))]


def speech_info(path: str | Path, fps: float | Fraction) -> AudioInfo:
    """What a sound file is like.

    Raises:
        UnreadableMedia: It has no sound.
        AudioTooShort: It lasts less than a frame.
    """
    return speech_infos([Path(path)], fps)[Path(path)]


def speech_infos(paths: Iterable[Path], fps: float | Fraction) -> dict[Path, AudioInfo]:
    """What sound files are like, each once.

    Raises:
        UnreadableMedia: One has no sound.
        AudioTooShort: The longest lasts less than a frame.
    """
    infos = {path: probe_audio(path) for path in dict.fromkeys(paths)}
    seconds = max(info.duration for info in infos.values())
    if round(seconds * fps) < 1:
        names = " and ".join(path.name for path in infos)
        raise AudioTooShort(f"{names} lasts {seconds:.3f} s, less than one frame; give longer speech")
    return infos


def open_source(
    path: str | Path, start: float | str, stop: float | str | None, audio_stream: int = 0
) -> SourceVideo:
    """A video that is to be edited; says what has been converted.

    Args:
        path: Any video file.
        start: Where the stretch begins: seconds, or a text such as "1:02:03".
        stop: Where it ends; None for the end of the video.
        audio_stream: Which audio stream is its speech.

    Raises:
        UnreadableMedia, InvalidOption: As :class:`~talkface.media.source.SourceVideo`.
    """
    first, last = seconds_of(start), None if stop is None else seconds_of(stop)
    source = SourceVideo(path, first, last, audio_stream)
    for note in source.notes:
        logger.warning("%s: %s", source.path.name, note)
    return source


def seconds_of(time: float | str) -> float:
    """Seconds of a number or of a text such as ``"12.5"`` or ``"1:02:03"``."""
    return parse_time(time) if isinstance(time, str) else float(time)


def one_of(name: str, value: object, choices: Sequence[object]) -> None:
    """See to it that an option has one of its values.

    Raises:
        InvalidOption: It has not.
    """
    if value not in choices:
        *others, last = map(str, choices)
        raise InvalidOption(f"{name} is {value}; choose {', '.join(others)} or {last}")


def stretch_of(source: SourceVideo) -> tuple[object, ...]:
    """What tells a stretch of a video from others, for fingerprints."""
    return source.size, source.start, source.stop, source.duration


def parts_to_leave_out(without: Collection[str], parts: Sequence[str]) -> frozenset[str]:
    """The parts that an ablation leaves out.

    Raises:
        InvalidOption: There is no such part.
    """
    if unknown := set(without) - set(parts):
        raise InvalidOption(f"there is no {', '.join(sorted(unknown))} to leave out; only {', '.join(parts)}")
    return frozenset(without)
