"""The maps from the papers' symbols to the code name things that exist, and files that are there."""

import re
from pathlib import Path

import pytest

SYSTEMS = Path(__file__).parents[2] / "src/talkface/systems"
PAGES = sorted(SYSTEMS.glob("*/README.md"))
ROWS = [
    (page.parent, *row)
    for page in PAGES
    for row in re.findall(r"`((?:\.\./)*[\w/]+\.py): (\w+)(?:\.(\w+))?`", page.read_text())
]


@pytest.mark.parametrize(
    ("folder", "file", "name", "member"),
    ROWS,
    ids=[".".join([row[0].name, *filter(None, row[2:])]) for row in ROWS],
)
def test_named_code_exists(folder: Path, file: str, name: str, member: str) -> None:
    text = (folder / file).read_text()
    assert re.search(rf"^(class|def) {name}\b", text, re.MULTILINE)
    assert not member or re.search(rf"^    def {member}\b", text, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_page_has_a_map_and_its_links_lead_somewhere(page: Path) -> None:
    assert len([row for row in ROWS if row[0] == page.parent]) > 5
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert "://" in target or (page.parent / target).exists(), target
    for recipe in re.findall(r"`(recipes/[\w.-]+)`", text):
        assert (SYSTEMS.parents[2] / recipe).is_file(), recipe
