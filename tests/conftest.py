"""Input files that tests share, made from the bundled examples."""

import json
import shutil
import wave
from collections.abc import Callable
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

import talkface
from talkface import cli
from talkface.data.faces import Portrait, keep, portraits
from talkface.data.manifest import Item, Manifest
from talkface.diffusion.autoencoder import FaceAutoencoder
from talkface.diffusion.config import AutoencoderConfig
from talkface.diffusion.model import FaceDiffusion
from talkface.face.crop import cut, transform
from talkface.face.model import FaceModel
from talkface.face.portrait import portrait_matrix
from talkface.face.tracker import FaceTracker
from talkface.hub import save_pretrained
from talkface.media.video import VideoReader
from talkface.systems.imagineid.config import PadConfig
from talkface.systems.imagineid.pad import Pad

# How long an example takes says how busy the machine is, not whether it is right.
settings.register_profile("talkface", deadline=None)
settings.load_profile("talkface")

RATE = 16000


@dataclass(frozen=True)
class Video:
    """What a video file turns out to hold when all of it is decoded."""

    frames: int
    fps: float
    size: tuple[int, int]
    seconds: float
    sound_seconds: float
    metadata: dict[str, str]


@dataclass(frozen=True)
class Outcome:
    """What a run of the command line left: exit code, lines on standard output and standard error."""

    code: int
    out: list[str]
    err: list[str]


def check_refused(outcome: Outcome, named: str) -> None:
    """A run was refused in one line that holds the words ``named``."""
    assert outcome.code == 2, outcome
    assert outcome.out == []
    assert len(outcome.err) == 1, outcome.err
    assert outcome.err[0].startswith("talkface: error: ")
    assert named in outcome.err[0]


def read_samples(path: Path) -> np.ndarray:
    """Decode a mono 16-bit file: (N,) int16."""
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)])


def write_wav(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    """Write (N,) or (N, channels) int16 samples."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def write_clip(
    path: Path, image: np.ndarray | None, samples: np.ndarray | None, seconds: float = 1.0
) -> Path:
    """Write a clip with a still picture (H, W, 3), with mono sound, or with both."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=25) if image is not None else None
        sound = container.add_stream("aac", rate=RATE, layout="mono") if samples is not None else None
        if picture is not None and image is not None:
            picture.width, picture.height, picture.pix_fmt = image.shape[1], image.shape[0], "yuv420p"
            for number in range(round(25 * seconds)):
                shown = av.VideoFrame.from_ndarray(image, format="rgb24")
                shown.pts, shown.time_base = number, Fraction(1, 25)
                container.mux(picture.encode(shown))
            container.mux(picture.encode(None))
        if sound is not None and samples is not None:
            heard = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
            heard.sample_rate, heard.pts = RATE, 0
            container.mux(sound.encode(heard))
            container.mux(sound.encode(None))
    return path


def read_video(path: Path) -> Video:
    """Decode everything in a video file."""
    with av.open(str(path)) as container:
        picture, metadata = container.streams.video[0], dict(container.metadata)
        frames, samples = 0, 0
        sound = container.streams.audio[0] if container.streams.audio else None
        for frame in container.decode(*([picture, sound] if sound else [picture])):
            if isinstance(frame, av.VideoFrame):
                frames += 1
            else:
                samples += frame.samples
        assert picture.average_rate
        fps = float(picture.average_rate)
        heard = samples / sound.rate if sound else 0.0
        return Video(frames, fps, (picture.width, picture.height), frames / fps, heard, metadata)


def write_looks(folder: Path) -> None:
    """Write what a first look at the portraits of a prepared folder finds: here, random features."""
    album = portraits(Manifest.load(folder))
    generator = np.random.default_rng(0)
    np.savez(
        folder / "looks.npz",
        key=np.array([portrait.key for portrait in album]),
        male=generator.random(len(album)),
        age=generator.uniform(20, 70, len(album)),
        features=generator.normal(size=(len(album), 1024)).astype(np.float16),
    )


def spoken(seconds: float, seed: int = 0) -> np.ndarray:
    """Something like a voice: (N,) float32 at 16 kHz."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    voice = np.sin(2 * np.pi * 140 * time) * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * time))
    return (0.3 * voice + 0.02 * rng.standard_normal(len(time))).astype(np.float32)


def blocks(samples: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut samples into blocks of a size, as a stream brings them."""
    return [samples[k : k + size] for k in range(0, len(samples), size)]


@pytest.fixture(scope="session")
def face() -> FaceModel:
    """The shipped face model."""
    return FaceModel.from_pretrained()


@pytest.fixture(scope="session")
def samples() -> np.ndarray:
    """The example speech: (160000,) int16 at 16 kHz."""
    return read_samples(talkface.example_speech())


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory, samples: np.ndarray) -> Path:
    """A directory with portrait.jpg (512x512) and speech.wav (1.2 s)."""
    folder = tmp_path_factory.mktemp("inputs")
    Image.open(talkface.example_portrait()).save(folder / "portrait.jpg", quality=95)
    write_wav(folder / "speech.wav", samples[RATE : RATE + RATE * 6 // 5])
    return folder


@pytest.fixture(scope="session")
def portrait(inputs: Path) -> Path:
    """A good portrait, 512x512."""
    return inputs / "portrait.jpg"


@pytest.fixture(scope="session")
def picture(portrait: Path) -> Image.Image:
    """The good portrait, loaded."""
    return Image.open(portrait).convert("RGB")


@pytest.fixture(scope="session")
def speech(inputs: Path) -> Path:
    """1.2 s of good speech: 30 frames at 25 a second."""
    return inputs / "speech.wav"


@pytest.fixture(scope="session")
def other_speech(inputs: Path, samples: np.ndarray) -> Path:
    """3 s of other words than those of ``talking``."""
    return write_wav(inputs / "other.wav", samples[5 * RATE : 8 * RATE])


@pytest.fixture(scope="session")
def talking(picture: Image.Image, samples: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A talking video with sound: 75 frames of 256x256, 25 a second, a face of about 110 pixels."""
    folder = tmp_path_factory.mktemp("talking")
    close, voice = folder / "close.png", write_wav(folder / "own.wav", samples[RATE : 4 * RATE])
    picture.crop((104, 8, 344, 248)).save(close)
    return talkface.animate(close, voice, size=256).save(folder / "talking.mp4")[0]


@pytest.fixture(scope="session")
def talking_frames(talking: Path) -> list[np.ndarray]:
    """The pictures of ``talking``, (256, 256, 3) uint8 each."""
    with VideoReader(talking) as video:
        return [frame.image for frame in video]


@pytest.fixture(scope="session")
def prepared_clips(talking: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``talkface prepare`` writes, of one clip for training and the same for validation."""
    folder = tmp_path_factory.mktemp("prepared")
    with VideoReader(talking) as video:
        track = FaceTracker().track_video((frame.time, frame.image) for frame in video)[0]
    audio = read_samples(talking.with_name("own.wav"))[: 3 * RATE]
    items = []
    for split in ("train", "val"):
        item = Item(key=split, file=talking.name, corpus="own", speaker=split, split=split)
        items.append(item)
        for name in ("tracks", "speech"):
            (folder / name).mkdir(exist_ok=True)
        arrays = {name: getattr(track, name) for name in ("points", "times", "found", "frames")}
        np.savez(folder / "tracks" / f"{split}.npz", **arrays)
        features = np.zeros((150, 512), np.float16)
        np.savez(folder / "speech" / f"{split}.npz", audio=audio, features=features)
    Manifest(folder, talking.parent, items).save()
    return folder


@pytest.fixture(scope="session")
def prepared_people(
    prepared_clips: Path, talking_frames: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A prepared folder of four people's clips, all the same, and of eight faces; copy it to change it."""
    folder = tmp_path_factory.mktemp("people")
    source = Manifest.load(prepared_clips)
    people = {"ann": "train", "bea": "train", "cid": "dev", "dan": "val"}
    items = []
    for name, split in people.items():
        items.append(Item(key=name, file=source.items[0].file, corpus="own", speaker=name, split=split))
        for kind in ("tracks", "speech"):
            (folder / kind).mkdir(exist_ok=True)
            shutil.copy(prepared_clips / kind / "train.npz", folder / kind / f"{name}.npz")
    manifest = Manifest(folder, source.root, items)
    manifest.save()
    (folder / "sync.json").write_text(json.dumps({"ann": 0.5, "bea": -1.0}))
    track, album = manifest.track(items[0]), []
    splits = ("train", "train", "train", "train", "train", "dev", "dev", "val")
    for number, split in enumerate(splits):
        points, image = track.points[9 * number], talking_frames[9 * number]
        matrix = portrait_matrix(points, image.shape[1::-1])
        jpeg = cv2.imencode(".jpg", cut(image, matrix, 256)[:, :, ::-1])[1].ravel()
        moved, generated = transform(points, matrix), number == 1
        album.append(Portrait(f"face{number}", f"person{number}", split, jpeg, moved, 5.0, generated))
    keep(folder / "faces.npz", album)
    write_looks(folder)
    return folder


@pytest.fixture(scope="session")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A tiny LDM, random and loud, and a tiny random PAD, as the hub reads them."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("frozen")
    small = AutoencoderConfig(encoder=(8, 16), decoder=(16, 8, 8), blocks=(1, 1, 1))
    pad = PadConfig(width=16, layers=1, heads=2, semantic=8)
    model = FaceDiffusion.debug()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "attn2.to_v" in name or "attn2.to_out.0.weight" in name:  # words are heard
                parameter.mul_(50)
            if name.endswith("conv_out.weight"):  # and there is much to put right
                parameter.mul_(8)
    for name, module, config in (
        ("face-autoencoder", FaceAutoencoder(small), small),
        ("face-diffusion", model, model.config),
        ("pad", Pad(pad), pad),
    ):
        save_pretrained(folder / name, {"model": asdict(config), "metrics": {}}, module.state_dict())
    return {"base": str(folder), "pad": str(folder / "pad")}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs the command line in this process, where models stay loaded from one test to the next."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Outcome(code, printed.out.splitlines(), printed.err.splitlines())

    return run
