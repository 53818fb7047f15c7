"""Ten minutes of a GPU become weights: pack here, train there, collect here. See docs/gpu.md.

python scripts/gpu.py pack PREPARED PACK --for ldm,sca,mba
python scripts/gpu.py train PACK OUT --for ldm,sca,mba --budget 520
python scripts/gpu.py collect OUT --pack PACK
"""

import argparse
import logging
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from talkface.errors import TalkfaceError
from talkface.training import gpu_run
from talkface.training.gpu_trainings import TRAININGS, chosen, contents_of

MIB = 2**20


def main(arguments: list[str] | None = None) -> int:
    """Run one of the three steps; 2 for bad input, with one line that says what is wrong."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = _parser().parse_args(arguments)
    try:
        return int(given.step(given))
    except (TalkfaceError, OSError) as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        return 2


def _pack(given: argparse.Namespace) -> int:
    from talkface.data.pack import pack

    names = chosen(given.trainings)
    contents = contents_of(names)
    wheels = gpu_run.wheels_in(given.wheels, contents.wheels) if given.wheels else []
    sizes = pack(given.prepared, given.pack, contents, wheels)
    code = gpu_run.code_size()
    for kind, size in sorted(sizes.items(), key=lambda pair: -pair[1]):
        print(f"{kind:12} {size / MIB:6.2f} MiB")
    total = given.pack.stat().st_size + code
    print(f"{'code':12} {code / MIB:6.2f} MiB\n{'in all':12} {total / MIB:6.2f} MiB for {', '.join(names)}")
    if not given.wheels and contents.wheels:
        print(f"no wheels: {', '.join(contents.wheels)} must be installed there, or name --wheels")
    if total > given.limit * MIB:
        print(f"gpu.py: more than {given.limit:g} MiB: name fewer trainings, or --limit", file=sys.stderr)
        return 2
    return 0


def _train(given: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        work = (given.work or Path(folder)).resolve()
        space = gpu_run.Workspace(work, given.tiny, given.device, given.steps, given.batch)
        report = gpu_run.train(given.pack, given.out, given.trainings, given.budget, space)
    failed = [name for name, state in report["trainings"].items() if state["ended"]]
    for name, state in report["trainings"].items():
        print(gpu_run.report_line(name, state))
    return 1 if failed else 0


def _collect(given: argparse.Namespace) -> int:
    from talkface.training.collect import collect

    given_for = given.tiny, given.install, given.also, given.take, given.keep
    for verdict in collect(given.out, given.pack, given.weights, *given_for):
        print(verdict)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gpu.py", description=(__doc__ or "").splitlines()[0])
    steps = parser.add_subparsers(required=True, metavar="pack|train|collect")
    pack = steps.add_parser("pack", help="what the named trainings need, as one file that travels")
    pack.add_argument("prepared", type=Path, help="what `talkface prepare` wrote")
    pack.add_argument("pack", type=Path, help="file to write")
    pack.add_argument("--wheels", type=Path, help="folder of wheels for packages that are missing there")
    pack.add_argument("--limit", type=float, default=44.0, help="MiB of pack and code (default: 44)")
    pack.set_defaults(step=_pack)
    train = steps.add_parser("train", help="train within a time; leaves models in parts and a report")
    train.add_argument("pack", type=Path, help="what `pack` wrote")
    train.add_argument("out", type=Path, help="folder for parts and report")
    train.add_argument("--budget", type=float, default=520.0, help="seconds in all (default: 520)")
    train.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    train.add_argument("--work", type=Path, help="folder to work in (default: one that is removed)")
    train.add_argument("--steps", type=int, default=0, help="of each training, in place of its time")
    train.add_argument("--batch", type=int, default=0, help="in place of the recipes'")
    train.set_defaults(step=_train)
    for step in (pack, train):
        step.add_argument(
            "--for",
            dest="trainings",
            required=True,
            type=lambda text: text.split(","),
            help=f"some of {','.join(TRAININGS)}",
        )
    collect = steps.add_parser(
        "collect", help="join, check, compare with the shipped, install what is better"
    )
    collect.add_argument("out", type=Path, help="what `train` left")
    collect.add_argument("--pack", type=Path, required=True, help="what it trained on: its split dev judges")
    collect.add_argument("--weights", type=Path, default=gpu_run.SHIPPED, help="folder of the shipped models")
    collect.add_argument(
        "--also", type=Path, nargs="*", default=[], help="models trained here over those that came back"
    )
    collect.add_argument(
        "--take", nargs="*", default=[], help="models that you have looked at and found better"
    )
    collect.add_argument("--keep", type=Path, help="leave the models here, too, to train more over them")
    collect.add_argument("--no-install", dest="install", action="store_false", help="judge only")
    collect.set_defaults(step=_collect)
    for step in (train, collect):
        step.add_argument("--tiny", action="store_true", help="small models and few pictures, to try it all")
    return parser


if __name__ == "__main__":
    sys.exit(main())
