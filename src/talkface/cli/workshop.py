"""Verbs that take hours: prepare, train, evaluate."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from talkface.cli.machine import wide_console
from talkface.cli.program import app
from talkface.errors import InvalidOption

WITHOUT = (
    "Part to leave out; may be repeated. Of imagine: tia, texture, restorer; with --renderer diffusion also "
    "reference, mba, before. Of fill: context, over_time, reference, detail, matte, stage2."
)


def log_progress() -> None:
    """Print on standard error how far a verb is."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("talkface").setLevel(logging.INFO)


@app.command()
def prepare(
    data: Annotated[Path, typer.Argument(help="Folder of videos.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the prepared clips.")],
) -> None:
    """Track faces and compute speech features of a folder of videos, for training."""
    from talkface.data.prepare import prepare

    log_progress()
    prepare(data, output)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A file of recipes/.")],
    data: Annotated[Path, typer.Option(help="Folder that `talkface prepare` wrote.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the run; runs/<recipe> if left out.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the recipe.")
    ] = None,
) -> None:
    """Train a model by a recipe."""
    from talkface.training.run import train_recipe

    log_progress()
    train_recipe(recipe, data, output, overrides or [])


@app.command()
def evaluate(
    real: Annotated[
        Path | None, typer.Argument(metavar="REAL", help="A real video, or a folder of them.")
    ] = None,
    generated: Annotated[
        Path | None,
        typer.Argument(metavar="GENERATED", help="What a tool made of it; in folders, by the same names."),
    ] = None,
    system: Annotated[
        str, typer.Option(help="System to evaluate with --data: animate, dub, imagine, fill.")
    ] = "animate",
    data: Annotated[
        Path | None, typer.Option(help="Folder of videos, or prepared data, to generate from.")
    ] = None,
    split: Annotated[str, typer.Option(help="Part of the data: val or train.")] = "val",
    limit: Annotated[int | None, typer.Option(help="At most so many clips.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of animate, imagine and fill.")] = 0,
    syncnet: Annotated[
        Path | None, typer.Option(help="SyncNet's original weights, for its LSE-D and LSE-C, too.")
    ] = None,
    own_models: Annotated[
        Path | None,
        typer.Option(
            "--models", metavar="DIR", help="Models of your own; those that are missing are the shipped ones."
        ),
    ] = None,
    renderer: Annotated[str, typer.Option(help="For imagine: auto, diffusion or warp.")] = "auto",
    without: Annotated[list[str] | None, typer.Option(metavar="PART", help=WITHOUT)] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the report.")] = Path(
        "evaluation"
    ),
) -> None:
    """Measure generated videos beside real ones, or a system on data: table, JSON, CSV, HTML page."""
    if bool(data) == bool(real) or bool(real) != bool(generated):
        raise InvalidOption("give either REAL and GENERATED, or --data (and --system)")
    if own_models and not data:
        raise InvalidOption("--models goes with --data and --system")
    if without and not data:
        raise InvalidOption("--without goes with --data and --system imagine or fill")
    from talkface.evaluation import evaluate_pairs, evaluate_system

    log_progress()
    figures = {}
    if data:
        figures = evaluate_system(
            system,
            data,
            output,
            split=split,
            limit=limit,
            seed=seed,
            syncnet=syncnet,
            models=own_models,
            renderer=renderer,
            without=without or [],
        )
    elif real and generated:
        figures = evaluate_pairs(real, generated, output, syncnet=syncnet)
    print_tables(figures)
    print(f"protocol {figures['protocol']}; more in {output / 'report.html'}")


def print_tables(figures: dict[str, Any]) -> None:
    """The figures of a report as tables on the terminal."""
    from rich.table import Table

    from talkface.evaluation import tables_of

    console = wide_console()
    for part in tables_of(figures):
        table = Table(part.title, "", *part.columns, box=None, padding=(0, 1))
        for figure, cells in part.rows:
            table.add_row(figure.name, figure.better, *cells)
        console.print(table)
