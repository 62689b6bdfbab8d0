"""A person's mistakes, at the command line: one clear message, an exit code, and no run folder."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from feddp.simulations.cli import main

SECRET = "kept-to-herself"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@dataclass
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str


def feddp(*arguments: str) -> Answer:
    """The command in a process of its own, as a person runs it."""
    command = [sys.executable, "-m", "feddp.simulations.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    return Answer(done.returncode, done.stdout, done.stderr)


def settings(folder: Path, **changes: object) -> list[str]:
    flat = {"run.rounds": 2, "privacy.num-users": 1000, "data.path": str(folder / "rows.jsonl")}
    flat |= {key.replace("__", ".").replace("_", "-"): value for key, value in changes.items()}
    arguments = ["--output-dir", str(folder / "runs")]
    for key, value in flat.items():
        arguments += ["--set", f"{key}={json.dumps(value)}"]
    return arguments


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def people(num_users: int = 40, **columns: object) -> list[dict[str, Any]]:
    return [
        {"user_id": f"{SECRET}-{i}", "text": f"{SECRET} {i}", **columns} for i in range(num_users)
    ]


def is_clear(answer: Answer, folder: Path, *expected: str, num_lines: int = 1) -> bool:
    """Asserts the form of every message; True, so that a test reads as a claim."""
    message = answer.err.removeprefix("feddp: ")
    assert answer.code == 2, answer
    assert len(message.strip().splitlines()) == num_lines, answer.err
    assert "Traceback" not in answer.err
    for part in expected:
        assert part in message, answer.err
    assert SECRET not in answer.err + answer.out
    assert not (folder / "runs").exists()
    return True


def simulate(capsys: pytest.CaptureFixture[str], folder: Path, **changes: object) -> Answer:
    capsys.readouterr()
    code = main(["simulate", *settings(folder, **changes)])
    caught = capsys.readouterr()
    return Answer(code, caught.out, caught.err)


def test_the_command_itself_says_it_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    answer = feddp("simulate", *settings(tmp_path, data__path=str(tmp_path / "none.jsonl")))
    assert is_clear(answer, tmp_path, "none.jsonl", "no such file or folder.")
    assert answer.err.startswith("feddp: data.path = ")


WRONG_SETTINGS = {
    "privacy.noise_multiplier=1": 'Did you mean "privacy.noise-multiplier"?',
    "privcy.target-epsilon=1": 'Did you mean "privacy.target-epsilon"?',
    "privacy.clipping-norm=-1.0": "privacy.clipping-norm = -1.0: must be a number > 0.",
    "privacy.target-epsilon=inf": "privacy.target-epsilon = inf: must be a number > 0",
    "privacy.noise-multiplier=nan": "privacy.noise-multiplier = nan: must be a number > 0",
    "privacy.target-delta=1": "privacy.target-delta = 1.0: must be a number > 0 and < 1",
    "run.rounds=0": "run.rounds = 0: must be a whole number >= 1",
    "run.rounds=2.5": "run.rounds = 2.5: must be a whole number",
    "run.rounds=true": "run.rounds = True: must be a whole number",
    "adapter.kind=dora": 'adapter.kind = "dora": must be one of "ffa-lora", "lora"',
    "data.path=my.jsonl": "privacy.num-users",
    "no-equals-sign": "write section.key=value",
}
SCRIPT = """
import contextlib, io, json, sys
from feddp.simulations.cli import main
answers = []
for setting in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(["simulate", "--output-dir", sys.argv[2], "--set", setting])
    answers.append((code, err.getvalue()))
heavy = sorted({"torch", "transformers", "peft", "datasets", "dp_accounting"} & set(sys.modules))
print(json.dumps([answers, heavy]))
"""


def test_wrong_settings_are_one_line_each_before_anything_heavy_is_imported(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", SCRIPT, json.dumps(list(WRONG_SETTINGS))]
    command.append(str(tmp_path / "runs"))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answers, heavy = json.loads(done.stdout)
    assert heavy == []
    for (code, err), expected in zip(answers, WRONG_SETTINGS.values(), strict=True):
        assert is_clear(Answer(code, "", err), tmp_path, expected)


def test_all_wrong_settings_are_named_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = simulate(capsys, tmp_path, run__rounds=0, privacy__clipping_norm=0)
    assert is_clear(answer, tmp_path, "run.rounds = 0", "clipping-norm = 0", num_lines=2)


def test_a_config_file_that_is_absent_or_no_toml(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.toml").write_text("[run\nrounds = 3")
    (tmp_path / "latin.toml").write_bytes(b'[run]\nname = "\xe9"\n')
    for name, expected in (
        ("none.toml", "cannot be read"),
        ("broken.toml", "is not TOML"),
        ("latin.toml", "is not TOML"),
    ):
        code = main(["simulate", str(tmp_path / name)])
        assert is_clear(Answer(code, "", capsys.readouterr().err), tmp_path, name, expected)


BROKEN_FILES = {
    "bytes": (b'{"user_id": "a", "text": "\xff"}\n', ("line 1: not UTF-8", "Convert the file.")),
    "column": (b'{"user_id": "a", "txt": "b"}\n', ('no column "text"', 'Did you mean "txt"?')),
    "user": (b'{"user_id": "a", "text": ""}\n{"text": ""}\n', ("line 2: the user is missing",)),
    "json": (b'{"user_id": "a", "text": ""}\nkept-to-herself\n', ("line 2: not a JSON object",)),
    "array": (b'[{"user_id": "a"}]', ("a JSON array", "JSON Lines")),
    "empty": (b"", ("the file is empty",)),
}


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_a_broken_file_is_named_with_the_place(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, expected = BROKEN_FILES[name]
    (tmp_path / "rows.jsonl").write_bytes(content)
    assert is_clear(simulate(capsys, tmp_path), tmp_path, "rows.jsonl", *expected)


def test_text_that_is_all_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, [{**row, "text": " \n"} for row in people()])
    assert is_clear(simulate(capsys, tmp_path), tmp_path, "no row with a text to learn from")


def test_chats_of_another_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, people(chat=[{"from": "human", "value": SECRET}]))
    answer = simulate(capsys, tmp_path, data__messages_column="chat")
    assert is_clear(answer, tmp_path, '"role" and "content"', '"assistant"')


def test_one_user_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, people(1) * 20)
    answer = simulate(capsys, tmp_path, data__evaluation_users=0)
    assert is_clear(answer, tmp_path, "one training user only", "nobody to hide among")


def test_evaluation_users_who_are_everyone_or_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, people(8))
    answer = simulate(capsys, tmp_path, data__evaluation_users=100_003)
    assert is_clear(answer, tmp_path, 'evaluation.consent = "declared"')
    agreed = {"evaluation__consent": "declared"}
    answer = simulate(capsys, tmp_path, data__evaluation_users=100_003, **agreed)
    assert is_clear(answer, tmp_path, "evaluation-users = 100003: no user falls into it")
    answer = simulate(capsys, tmp_path, data__evaluation_users=1, **agreed)
    assert is_clear(
        answer, tmp_path, "one training user only, or none", "holds out every user", num_lines=2
    )


def classes(labels: str) -> dict[str, object]:
    return {
        "model__task": "classification",
        "data__label_column": "label",
        "data__labels": labels,
        "adapter__target_modules": "q_proj",
    }


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("Good,Bad", 'one of the declared classes "Good,Bad"'),
        ("good,bda", 'data.labels: no training row has the class "bda"'),
    ],
)
def test_declared_classes_that_training_does_not_hold(
    labels: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, people(20, label="good") + people(20, label="bad"))
    assert is_clear(simulate(capsys, tmp_path, **classes(labels)), tmp_path, expected)


def test_evaluation_data_without_a_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, people())
    (tmp_path / "public.jsonl").write_text('{"user_id": "a", "text": ""}\n')
    answer = simulate(capsys, tmp_path, data__evaluation_path=str(tmp_path / "public.jsonl"))
    assert is_clear(answer, tmp_path, "data.evaluation-path", "no row with a text")


def test_an_epsilon_that_no_noise_reaches_says_what_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, people())
    answer = simulate(capsys, tmp_path, privacy__target_epsilon=0.001)
    assert is_clear(answer, tmp_path, "privacy.target-epsilon = 0.001", "larger target")
    advice = re.search(
        r"A cohort of ([\d.]+) \(sampling.expected-cohort-size\) reaches", answer.err
    )
    assert advice is not None
    changes = {"privacy__target_epsilon": 0.001}
    changes["sampling__expected_cohort_size"] = float(advice.group(1))
    assert main(["plan", *settings(tmp_path, **changes)]) == 0


def test_target_modules_that_the_base_model_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, people())
    answer = simulate(capsys, tmp_path, adapter__target_modules="c_attn")
    assert is_clear(answer, tmp_path, "c_attn", "q_proj")


def test_a_base_model_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, people())
    answer = simulate(capsys, tmp_path, model__base=str(tmp_path / "no-model"))
    assert is_clear(answer, tmp_path, "no-model")


def test_a_run_folder_that_exists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, people())
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    answer = simulate(capsys, tmp_path, run__name="mine")
    assert (answer.code, len(answer.err.splitlines())) == (2, 1)
    assert "exists, and a run never overwrites another" in answer.err
    assert os.listdir(tmp_path / "runs") == ["mine"]
    assert os.listdir(tmp_path / "runs" / "mine") == []


def test_a_run_without_privacy_on_real_data_needs_a_folder_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, people())
    for extra in ([], ["--non-private-dir", str(tmp_path / "runs" / "other")]):
        code = main(["simulate", "--with-non-private", *extra, *settings(tmp_path)])
        answer = Answer(code, "", capsys.readouterr().err)
        assert is_clear(answer, tmp_path, "--non-private-dir")


def test_check_names_problems_of_model_and_data_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, [{"user_id": "a", "txt": "b"}])
    arguments = settings(tmp_path, adapter__target_modules="c_attn")
    code = main(["check", *arguments])
    answer = Answer(code, "", capsys.readouterr().err)
    assert is_clear(answer, tmp_path, "c_attn", 'Did you mean "txt"?', num_lines=2)
