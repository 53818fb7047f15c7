"""Every command and every piece of Python in the documentation works as printed.

The first block of each language is run as a reader runs it, in a process of its own, and so is every one that
needs a shell. The others run in this process, where models stay loaded from one block to the next.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from talkface.cli import main
from talkface.training.run import load_recipe

ROOT = Path(__file__).parents[2]
FRONT = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
PAGES = [*(ROOT / name for name in FRONT), *sorted((ROOT / "docs").rglob("*.md"))]
# A fenced block of a language that is run, with the remark before it that it is not.
BLOCK = re.compile(
    r"(?P<skip><!-- not run: [^>]+ -->\s*)?^```(?P<language>bash|python)\n(?P<code>.*?)^```",
    re.DOTALL | re.MULTILINE,
)


# A line that a shell has nothing to do with but to cut it into words, and the remark behind it.
PLAIN = re.compile(r"""talkface(?:[ ]+(?:[\w./:=,+%@-]+|"[^"$`\\!]*"|'[^']*'))+""")
REMARK = re.compile(r"(?:^|\s+)#.*$")


@dataclass(frozen=True)
class Block:
    """A piece of code in a page, and the line it starts on."""

    page: Path
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> list[list[str]] | None:
        """The arguments of every ``talkface`` of a block that is nothing else; None if it needs a shell."""
        lines = [REMARK.sub("", line) for line in self.code.replace("\\\n", " ").splitlines()]
        lines = [line.strip() for line in lines if line.strip()]
        if self.language != "bash" or not all(PLAIN.fullmatch(line) for line in lines):
            return None
        return [shlex.split(line)[1:] for line in lines]


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(page, text.count("\n", 0, match.start("code")) + 1, match["language"], match["code"])
        for match in BLOCK.finditer(text)
        if not match["skip"]
    ]


BLOCKS = [block for page in PAGES for block in blocks(page)]
FOR_REAL = [next(one for one in BLOCKS if one.language == language) for language in ("bash", "python")]


def run_for_real(block: Block) -> None:
    """Run a block as its reader does: by the shell, which finds the installed program, or by Python."""
    program = ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else [sys.executable, "-c"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [*program, block.code],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{block.code}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def folder(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all blocks run, in the order of the pages: a later one may use what an earlier one wrote."""
    return Path(shutil.copytree(inputs, tmp_path_factory.mktemp("docs") / "work"))


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_block_runs(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    commands = block.commands()
    if block in FOR_REAL or (block.language == "bash" and commands is None):
        run_for_real(block)
    elif commands is None:
        exec(compile(block.code, str(block), "exec"), {"__name__": "__main__"})
    else:
        for command in commands:
            assert main(command) == 0, f"{block}\n{shlex.join(command)}"


@pytest.mark.parametrize(
    ("code", "commands"),
    [
        ('talkface dub a.mp4 "b c.wav" -o d.mp4  # a remark\n', [["dub", "a.mp4", "b c.wav", "-o", "d.mp4"]]),
        (
            "# a remark\ntalkface fill a \\\n  b --stop 0:1.5\n\ntalkface x\n",
            [["fill", "a", "b", "--stop", "0:1.5"], ["x"]],
        ),
        ("talkface animate a b | tee c\n", None),
        ("talkface animate *.png b\n", None),
        ('talkface imagine "$speech"\n', None),
        ("talkface animate a b > c\n", None),
        ("talkface a; talkface b\n", None),
        ("python -m talkface a\n", None),
        ("for x in a b; do talkface dub $x; done\n", None),
    ],
)
def test_what_needs_a_shell_is_known(code: str, commands: list[list[str]] | None) -> None:
    assert Block(ROOT / "README.md", 1, "bash", code).commands() == commands


def anchors(page: Path) -> set[str]:
    """What a link may name in a page: its headings, written as GitHub writes them in an address."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_of_the_project_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", page.read_text()):
        if "://" in target:
            continue
        file = page.parent / target if target else page
        assert file.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{page.name} links to {target}#{anchor}"


def trainings(page: Path) -> list[tuple[str, tuple[str, ...]]]:
    """Recipe and overrides of every training that a page names and that takes too long to be run here."""
    found = []
    for code in re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:2] == ["talkface", "train"] and "$" not in line and "newpaper" not in line:
                overrides = (words[k + 1] for k, word in enumerate(words) if word == "--set")
                found.append((words[2], tuple(overrides)))
    return found


@pytest.mark.parametrize(
    ("recipe", "overrides"), sorted({one for page in PAGES for one in trainings(page)}), ids=str
)
def test_trainings_name_recipes_and_settings_that_exist(recipe: str, overrides: tuple[str, ...]) -> None:
    load_recipe(ROOT / recipe, overrides)


def test_the_picture_of_the_house_shows_every_room() -> None:
    package = ROOT / "src/talkface"
    rooms = {path.stem for path in package.iterdir() if path.is_dir() or path.suffix == ".py"}
    rooms -= {"__init__", "__main__", "__pycache__", "_version", "examples", "py", "weights"}
    picture = (ROOT / "docs/architecture.md").read_text().split("```")[1]
    shown = set(re.findall(r"│ (\w+)", picture))
    assert rooms - {"api"} == shown - {"api"}
