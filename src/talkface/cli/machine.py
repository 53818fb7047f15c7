"""What is on this machine: its state, and models."""

from __future__ import annotations

import sys
from textwrap import fill
from typing import TYPE_CHECKING, Annotated

import typer

from talkface.cli.program import ProgressOption, app
from talkface.progress import Mode, Reporter

if TYPE_CHECKING:
    from rich.console import Console

models = typer.Typer(help="List or fetch the models that others made.", no_args_is_help=False)
app.add_typer(models, name="models")


@app.command()
def doctor() -> None:
    """Show device, speed, codecs and models; exit code 1 if something is wrong."""
    from rich.table import Table
    from rich.text import Text

    from talkface.cli.doctor import examine

    facts = examine()
    table = Table(show_header=False, box=None, padding=(0, 1))
    for fact in facts:
        mark = Text("ok", style="green") if fact.ok else Text("!!", style="red")
        table.add_row(mark, fact.name, fact.value)
    wide_console().print(table)
    if not all(fact.ok for fact in facts):
        raise typer.Exit(1)


def wide_console() -> Console:
    """A console for tables."""
    from rich.console import Console

    # Rows stay whole in files and pipes.
    return Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 200)


@models.callback(invoke_without_command=True)
def _models(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_models()


@models.command("list")
def list_models() -> None:
    """Show every model with licence and state."""
    from talkface import hub
    from talkface.cli.doctor import model_state

    for own in hub.bundled_models():
        _show_model(f"{own.id}  {own.size / 1e6:.2f} MB, {own.licence}, bundled", f"trained on {own.data}")
    for other in hub.MODELS.values():
        first = f"{other.name}  {other.size / 1e6:.2f} MB, {other.licence}"
        _show_model(first, other.purpose, model_state(other.name))


def _show_model(first: str, *others: str) -> None:
    """A model in a few lines, which are readable in a narrow terminal, too."""
    print(first)
    for line in others:
        print(fill(line, 80, initial_indent="    ", subsequent_indent="    ", break_long_words=False))


@models.command()
def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(help="Models; by default those the verbs need.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Those for training, too.")] = False,
    progress: ProgressOption = Mode.auto,
) -> None:
    """Get models ahead of time, for use without a network."""
    from talkface import hub

    with Reporter(progress) as report:
        for name in names or hub.models_for("train" if everything else "fill"):
            print(hub.model_path(name, report))
