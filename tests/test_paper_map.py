"""The map from the paper's symbols to code names things that exist."""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "src/talkface/systems/thpad"
ROWS = re.findall(r"`((?:\.\./)*[\w/]+\.py): (\w+)(?:\.(\w+))?`", (FOLDER / "README.md").read_text())


@pytest.mark.parametrize(
    ("file", "name", "member"), ROWS, ids=[".".join(filter(None, row[1:])) for row in ROWS]
)
def test_named_code_exists(file: str, name: str, member: str):
    text = (FOLDER / file).read_text()
    assert re.search(rf"^(class|def) {name}\b", text, re.MULTILINE)
    assert not member or re.search(rf"^    def {member}\b", text, re.MULTILINE)
