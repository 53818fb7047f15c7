"""The command line: verbs, options that mirror the API, progress, exit codes."""

import importlib
import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer

import talkface
from conftest import Outcome, read_video
from talkface import cli, hub
from talkface.cli.verbs import argument_help

Run = Callable[..., Outcome]
VERBS = ("animate", "dub", "imagine", "fill")


def start(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "talkface.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]


def test_help_loads_nothing_heavy() -> None:
    code = "import sys, talkface.cli as c; c.main(['--help']); print(sorted(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "animate" in printed
    for module in ("torch", "numpy", "cv2", "av", "ai_edge_litert", "PIL"):
        assert f"'{module}'" not in printed


@pytest.mark.parametrize("verb", [*VERBS, "doctor", "models", "prepare", "train", "evaluate"])
def test_every_verb_has_help(verb: str, run: Run) -> None:
    outcome = run(verb, "--help")
    assert outcome.code == 0
    assert any("Usage" in line for line in outcome.out)


def test_version(run: Run) -> None:
    assert run("--version") == Outcome(0, [f"talkface {talkface.__version__}"], [])


@pytest.mark.parametrize(
    "arguments",
    [
        ["animat"],
        ["animate"],
        ["animate", "a.jpg", "b.wav"],
        ["dub"],
        ["dub", "a.mp4", "b.wav"],
        ["dub", "a.mp4", "b.wav", "c.wav", "-o", "d.mp4"],
        ["--bogus"],
        ["evaluate"],
        ["train"],
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], run: Run) -> None:
    outcome = run(*arguments)
    assert outcome.code == 2
    assert outcome.out == []
    assert len(outcome.err) == 1
    assert outcome.err[0].startswith("talkface: error: ")


def parameters(verb: str) -> dict[str, tuple[bool, object]]:
    """Names of a command's parameters: whether they are options, and their defaults."""
    command = typer.main.get_command(cli.app).commands[verb]  # type: ignore[attr-defined]
    return {one.name: (one.param_type_name == "option", one.default) for one in command.params}


@pytest.mark.parametrize("verb", VERBS)
def test_the_command_line_takes_what_the_api_takes(verb: str) -> None:
    """Every argument of the API, with its default, is one of the command line; a few more are its own."""
    of_program = {"output", "overwrite", "resume", "progress", "help"}
    extra = {"animate": {"export_motion"}, "dub": {"dry_run"}, "fill": {"landmarks_out"}}
    extra["imagine"] = {"portrait_out", "explain"}
    told, command = inspect.signature(getattr(talkface, verb)).parameters, parameters(verb)
    assert set(told) == set(command) - of_program - extra[verb]
    for name, parameter in told.items():
        is_option, default = command[name]
        assert is_option == (parameter.kind is parameter.KEYWORD_ONLY)
        if parameter.default not in (parameter.empty, None):
            assert default == parameter.default, name


@pytest.mark.parametrize(
    ("verb", "pipeline"),
    [
        ("animate", "thpad.pipeline:ThpadPipeline"),
        ("dub", "g4g.pipeline:G4GPipeline"),
        ("imagine", "imagineid.pipeline:ImagineIdPipeline"),
        ("fill", "tccp.pipeline:TccpPipeline"),
    ],
)
def test_the_pipeline_takes_what_the_api_takes(verb: str, pipeline: str) -> None:
    module, _, name = pipeline.partition(":")
    call = getattr(importlib.import_module(f"talkface.systems.{module}"), name).__call__
    of_verb = inspect.signature(getattr(talkface, verb)).parameters
    of_call = inspect.signature(call).parameters
    for name, parameter in of_verb.items():
        if name not in ("device", "base"):  # they choose the pipeline
            assert name in of_call
            assert parameter.default in (of_call[name].default, parameter.empty), name


def test_every_verb_means_the_same_by_the_same_name() -> None:
    verbs = {verb: inspect.signature(getattr(talkface, verb)).parameters for verb in VERBS}
    # Beside a number: the size of the source, "auto" or "all" of the faces, the steps of the model itself.
    words = {
        "animate.size": "int | str",
        "dub.face": "int | str",
        "dub.audio": "str | Path | None",
        "imagine.steps": "int | None",
    }
    for name in {name for of in verbs.values() for name in of}:
        kinds = {
            str(of[name].annotation)
            for verb, of in verbs.items()
            if name in of and words.get(f"{verb}.{name}") != of[name].annotation
        }
        assert len(kinds) <= 1, (name, kinds)
    assert all("resume" in parameters(verb) for verb in VERBS)
    assert all(("takes" in of) == ("seed" in of) for of in verbs.values())


@pytest.mark.parametrize("verb", VERBS)
def test_help_says_what_the_docstring_says(verb: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    function = getattr(talkface, verb)
    told = argument_help(function)
    assert set(told) == set(inspect.signature(function).parameters)
    monkeypatch.setenv("COLUMNS", "400")
    shown = run(verb, "--help").out
    for name, text in told.items():
        lines = [line for line in shown if text[:120] in line]
        assert lines, (name, text)


def test_bug_is_one_line_and_a_traceback_under_debug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(hub, "models_for", broken)
    arguments = ["animate", "a.jpg", "b.wav", "-o", tmp_path / "out.mp4"]
    outcome = run(*arguments)
    assert outcome.code == 1
    assert outcome.err == [
        "talkface: error: RuntimeError: first line second line (a bug: --debug shows where)"
    ]
    with pytest.raises(RuntimeError):
        run(*arguments, "--debug")


def test_doctor_reports_every_part(run: Run) -> None:
    outcome = run("doctor")
    text = "\n".join(outcome.out)
    assert outcome.code == 0, text
    for part in ("torch", "cores", "bf16", "GFLOP/s", "libavcodec", *hub.MODELS, "Apache-2.0"):
        assert part in text


def test_models_are_listed_with_licence_and_state(run: Run) -> None:
    outcome = run("models")
    assert outcome == run("models", "list")
    for name, model in hub.MODELS.items():
        assert any(name in line and model.licence in line for line in outcome.out)
    for own in hub.bundled_models():
        assert any(own.id in line and "bundled" in line for line in outcome.out)


def test_models_fetch(run: Run) -> None:
    outcome = run("models", "fetch", "iris_landmark.tflite")
    assert outcome == Outcome(0, [str(hub.find_model("iris_landmark.tflite"))], [])
    assert run("models", "fetch", "no-such-model").code == 2


def test_reader_that_goes_away() -> None:
    command = f"{sys.executable} -m talkface.cli models | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_animate_in_a_process_prints_the_output_only(portrait: Path, speech: Path, tmp_path: Path) -> None:
    done = start("animate", portrait, speech, "-o", "out.mp4", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "out.mp4\n", "")
    video = read_video(tmp_path / "out.mp4")
    assert (video.frames, video.fps, video.size) == (30, 25, (512, 512))
    assert abs(video.sound_seconds - video.seconds) <= 1 / 25 + 1024 / 16000
    note = " ".join(video.metadata.values())
    assert "synthetic" in note.lower()
    assert talkface.__version__ in note


def test_progress_as_json(portrait: Path, speech: Path, tmp_path: Path, run: Run) -> None:
    outcome = run("animate", portrait, speech, "-o", tmp_path / "out.mp4", "--progress", "json")
    assert (outcome.code, outcome.out) == (0, [])
    events = [json.loads(line) for line in outcome.err]
    steps = [event for event in events if event["event"] == "progress"]
    assert {step["stage"] for step in steps} >= {"motion", "frames"}
    last = [step for step in steps if step["stage"] == "frames"][-1]
    assert (last["done"], last["total"]) == (30, 30)
    assert last["realtime"] > 0
    assert events[-1] == {"event": "done", "output": str(tmp_path / "out.mp4"), "seed": 0}


def test_progress_off_is_silent(portrait: Path, speech: Path, tmp_path: Path, run: Run) -> None:
    assert run("animate", portrait, speech, "-o", tmp_path / "a.mp4", "--progress", "off") == Outcome(
        0, [], []
    )


def test_takes_have_their_own_motion_and_the_same_lips(
    portrait: Path, speech: Path, tmp_path: Path, run: Run
) -> None:
    from talkface.face.motion import FaceMotion

    motion = tmp_path / "motion.json"
    options = ["--takes", 2, "--seed", 5, "--export-motion", motion]
    outcome = run("animate", portrait, speech, "-o", tmp_path / "out.mp4", *options)
    assert outcome.code == 0, outcome
    assert outcome.out == [str(tmp_path / f"out.take{number}.mp4") for number in (1, 2)]
    first, second = (FaceMotion.from_json(tmp_path / f"motion.take{number}.json") for number in (1, 2))
    assert len(first) == len(second) == 30
    np.testing.assert_allclose(first.beta_mouth, second.beta_mouth, atol=1e-3)
    assert not np.allclose(first.rotation, second.rotation, atol=1e-4)
    # The second take is what its seed alone gives.
    again = run("animate", portrait, speech, "-o", tmp_path / "b.mp4", "--seed", 6, "--export-motion", motion)
    assert again.code == 0
    np.testing.assert_allclose(FaceMotion.from_json(motion).rotation, second.rotation, atol=1e-4)


@pytest.mark.parametrize(("fps", "frames"), [("source", 30), ("25", 30), ("30", 36), ("29.97", 36)])
def test_frame_rate(fps: str, frames: int, portrait: Path, speech: Path, tmp_path: Path, run: Run) -> None:
    assert run("animate", portrait, speech, "-o", tmp_path / "out.mp4", "--fps", fps).code == 0
    assert read_video(tmp_path / "out.mp4").frames == frames


def test_size(portrait: Path, speech: Path, tmp_path: Path, run: Run) -> None:
    assert run("animate", portrait, speech, "-o", tmp_path / "out.mp4", "--size", 256).code == 0
    assert read_video(tmp_path / "out.mp4").size == (256, 256)


def test_overwrite(portrait: Path, speech: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "out.mp4").write_bytes(b"old")
    assert run("animate", portrait, speech, "-o", tmp_path / "out.mp4", "--overwrite").code == 0
    assert read_video(tmp_path / "out.mp4").frames == 30


def test_python_api(portrait: Path, speech: Path, tmp_path: Path) -> None:
    generation = talkface.animate(portrait, speech, seed=3)[0]
    assert (generation.fps, tuple(generation.size), generation.seed) == (25, (512, 512), 3)
    generation.save(tmp_path / "out.mp4")
    frames = [
        frame for frame, _ in zip(talkface.animate(str(portrait), str(speech))[0], range(2), strict=False)
    ]
    assert all(frame.shape == (512, 512, 3) and frame.dtype == np.uint8 for frame in frames)
    assert read_video(tmp_path / "out.mp4").frames == 30


def test_dub_in_a_process_prints_the_output_only(talking: Path, speech: Path, tmp_path: Path) -> None:
    done = start("dub", talking, speech, "-o", "out.mp4", "--stop", "0.4", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "out.mp4\n", "")
    video = read_video(tmp_path / "out.mp4")
    assert (video.frames, video.fps, video.size) == (10, 25, (256, 256))
    assert abs(video.sound_seconds - video.seconds) <= 1 / 25 + 1024 / 16000
    assert start("dub", talking, speech, "-o", "out.mp4", cwd=tmp_path).returncode == 2


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--system", "animate", "--renderer", "warp"], "renderer is an option of imagine"),
        (["--system", "fill", "--syncnet", "weights.model"], "syncnet scores dub"),
        (["--system", "sing"], "choose animate, dub, imagine or fill"),
    ],
)
def test_evaluate_refuses_options_of_other_systems(
    options: list[str], named: str, tmp_path: Path, run: Run
) -> None:
    outcome = run("evaluate", "--data", tmp_path, "-o", tmp_path / "report", *options)
    assert outcome.code == 2
    assert named in outcome.err[-1]
    assert not (tmp_path / "report").exists()
