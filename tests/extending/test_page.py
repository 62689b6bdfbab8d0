"""docs/extending.md says what the changes are: their files, their text, and names that exist."""

import ast
import re
from pathlib import Path

import pytest
from mutants.run import ROOT
from test_layout import sources

from extending.change import FOLDER, Change
from extending.changes import CHANGES
from extending.test_extending import apply_alone
from feddp.common.config.run_config import RunConfig, to_flat

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
NEW_FILES = {Path(target).name for change in CHANGES for target in change.new_files}
WRITTEN_BY_RUNS = {"metrics.jsonl", "result.json"}
COMMANDS = {"feddp check --keys"}


def section(change: Change) -> str:
    """What the page says of a change."""
    heading = f"## {change.name[0].upper()}{change.name[1:]}\n"
    return PAGE.split(heading)[1].split("\n## ")[0]


def words(text: str) -> set[str]:
    """Everything in backticks, outside of blocks."""
    return set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)))


def names_of(source: str) -> set[str]:
    """What a file defines or imports: functions, classes, attributes, arguments, constants."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.alias(name=name):
                found.add(name)
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                found.add(name)
    return found


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_an_excerpt_is_the_text_of_the_change(change: Change, tmp_path: Path) -> None:
    apply_alone(change, tmp_path)
    texts = [(tmp_path / name).read_text(encoding="utf-8") for name in change.files]
    blocks = re.findall(r"```python\n(.*?)```", section(change), re.DOTALL)
    parts = [part for block in blocks for part in block.split("...\n")]
    assert parts
    assert [part for part in parts if not any(f"\n{part}" in text for text in texts)] == []


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_the_page_names_and_counts_every_file_of_a_change(change: Change) -> None:
    expected = {Path(name).name if name in change.new_files else name for name in change.files}
    assert expected <= words(section(change))
    assert f"| {change.name} | {len(change.files)} |" in PAGE


def test_every_word_of_code_on_the_page_exists() -> None:
    known = {path.name for path in FOLDER.iterdir()} | {path.name for path in sources()}
    known |= NEW_FILES | WRITTEN_BY_RUNS | COMMANDS | set(to_flat(RunConfig()))
    for path in (*map(ROOT.joinpath, sources()), *(FOLDER / "new_files").iterdir()):
        known |= names_of(path.read_text(encoding="utf-8")) if path.suffix == ".py" else set()
    missing = {word for word in words(PAGE) if word not in known and not (ROOT / word).exists()}
    assert missing == set()
