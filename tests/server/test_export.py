"""What a run leaves behind: the promise in two places, and a card that says how to load."""

import ast
import json
from pathlib import Path

import pytest
from small_ledger import small_plan

from feddp.common.config.run_config import from_flat
from feddp.common.privacy.plan.statement import guarantee_line
from feddp.server.export import write_card, write_promise

PLAN = small_plan()
SHARED = {"population": "people", "epsilon": 8.0, "delta": 1e-5, "mode": "adaptive"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "adapter").mkdir()
    return tmp_path


def card(folder: Path, results: dict[str, dict[str, float] | None], **settings: object) -> str:
    write_card(folder, PLAN, from_flat(settings), results=results, not_covered=["the base"])
    return (folder / "adapter" / "README.md").read_text()


def test_the_promise_lies_beside_the_run_and_beside_its_adapter(folder: Path) -> None:
    write_promise(folder, PLAN, ledger_head="ab" * 32, not_covered=["the base"])
    text = (folder / "privacy.json").read_text()
    assert (folder / "adapter" / "privacy.json").read_text() == text
    promise = json.loads(text)
    assert (promise["epsilon"], promise["delta"]) == (PLAN.epsilon, PLAN.delta)
    assert promise["ledger_head"] == "ab" * 32
    assert promise["not_covered"] == ["the base"]
    assert "population" not in promise


def test_a_shared_population_is_named_in_promise_and_card(folder: Path) -> None:
    write_promise(folder, PLAN, ledger_head="ab" * 32, not_covered=[], shared=SHARED)
    promise = json.loads((folder / "privacy.json").read_text())
    assert promise["population"] == SHARED
    assert promise["scope"] == "this run, and all runs of its population"
    write_card(folder, PLAN, from_flat({}), results={}, not_covered=[], shared=SHARED)
    text = (folder / "adapter" / "README.md").read_text()
    assert "All runs on the population people together: epsilon <= 8.0" in text


def test_the_card_says_the_guarantee_and_the_results_that_there_are(folder: Path) -> None:
    text = card(folder, {"base": {"loss": 4.0}, "private": {"loss": 3.25}, "non_private": None})
    assert guarantee_line(PLAN) in text
    assert "| | loss |\n|---|---|\n| base | 4.0000 |\n| private | 3.2500 |\n" in text
    assert "non_private" not in text
    assert "There were no evaluation users." in card(folder, {"base": None})


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({}, ['load_base("demo"', "PeftModel.from_pretrained"]),
        ({"model.base": "org/x"}, ['AutoModelForCausalLM.from_pretrained("org/x")', "PeftModel"]),
        (
            {
                "model.base": "org/x",
                "model.task": "classification",
                "data.path": "x.jsonl",
                "data.label-column": "kind",
                "data.labels": "bad,good",
                "privacy.num-users": 100,
            },
            ["num_labels=2", "('bad', 'good')"],
        ),
        ({"adapter.kind": "full"}, ["load_file", "load_state_dict"]),
    ],
)
def test_what_the_card_says_about_loading_is_python(
    folder: Path, settings: dict[str, object], parts: list[str]
) -> None:
    code = card(folder, {}, **settings).split("```python\n")[1].split("```")[0]
    ast.parse(code)
    assert all(part in code for part in parts)
