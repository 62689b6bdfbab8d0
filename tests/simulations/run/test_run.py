"""A run in Python: in memory, twice, in a thread, silent, stopped and resumed."""

import threading
from pathlib import Path

import pytest
import torch
from peft import PeftModel

import feddp
from feddp.common.config.run_config import from_flat
from feddp.common.errors import ConfigError, DataError
from feddp.simulations.run.run import path_of

ROWS = [{"who": f"user {n % 40}", "says": f"hello, where is my order {n}?"} for n in range(60)]


def config(path: Path, **changes: object) -> feddp.RunConfig:
    flat = {
        "run.name": "own",
        "run.seed": 5,
        "run.rounds": 2,
        "run.output-dir": str(path),
        "privacy.num-users": 36,
        "sampling.expected-cohort-size": 5.0,
        "adapter.target-modules": "q_proj",
    }
    return from_flat({**flat, **changes})


@pytest.fixture(scope="module")
def users() -> feddp.Users:
    return feddp.Users.from_rows(ROWS, user="who", text="says")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, users: feddp.Users) -> feddp.Run:
    return feddp.simulate(config(tmp_path_factory.mktemp("runs")), users)


def test_a_run_holds_what_was_promised_measured_and_charged(run: feddp.Run) -> None:
    assert run.is_complete
    assert run.last_round == 2
    assert run.privacy["epsilon"] == run.plan.epsilon
    assert run.privacy["num_users"] == 36
    assert len(run.ledger.charges) == 2
    assert [line["round"] for line in run.metrics] == [0, 1, 2]
    assert set(run.results) == {"base", "private", "non_private"}
    assert "2 of 2 rounds" in repr(run)
    assert "upper bound" in run._repr_html_()
    assert path_of(run) == path_of(str(run.path)) == run.path
    assert repr(feddp.load_run(run.path)) == repr(run)


def test_the_model_generates(run: feddp.Run) -> None:
    model, tokenizer = run.load_model(), run.load_tokenizer()
    assert isinstance(model, PeftModel)
    inputs = tokenizer("hello", return_tensors="pt")
    tokens = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert tokens.shape[1] > inputs["input_ids"].shape[1]


def test_again_and_in_a_thread_it_is_the_same_and_silent(
    run: feddp.Run, users: feddp.Users, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    threads, found = torch.get_num_threads(), []

    def train() -> None:
        found.append(feddp.simulate(config(tmp_path), users))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert "".join(capfd.readouterr()) == ""
    assert torch.get_num_threads() == threads
    adapters = [(one.adapter / "adapter_model.safetensors").read_bytes() for one in (run, *found)]
    assert adapters[0] == adapters[1]


def test_what_looks_at_a_run_may_be_asked_again(run: feddp.Run, users: feddp.Users) -> None:
    asked = config(run.path.parent)
    assert repr(feddp.plan(asked)) == repr(feddp.plan(asked))
    assert feddp.report(run) == feddp.report(run.path)
    assert [repr(feddp.resume(run, users)) for _ in range(2)] == [repr(run)] * 2


def test_a_stopped_run_goes_on_with_the_same_users_alone(
    run: feddp.Run, users: feddp.Users, tmp_path: Path
) -> None:
    rounds: list[int] = []
    stopped = feddp.simulate(
        config(tmp_path),
        users,
        on_round=lambda report: rounds.append(report.round),
        is_stopped=lambda: 1 in rounds,
    )
    assert (stopped.is_complete, stopped.last_round, rounds) == (False, 1, [0, 1])
    with pytest.raises(ConfigError, match="Finish the run"):
        stopped.load_model()
    with pytest.raises(DataError, match="given in Python"):
        feddp.resume(stopped)
    others = feddp.Users.from_rows(ROWS, user="says", text="who")
    with pytest.raises(ConfigError, match="not those of the run"):
        feddp.resume(stopped, others)
    whole = feddp.resume(stopped.path, users)
    assert whole.is_complete
    adapters = [(one.adapter / "adapter_model.safetensors").read_bytes() for one in (run, whole)]
    assert adapters[0] == adapters[1]


def test_a_kind_that_peft_does_not_hold_is_loaded_too(users: feddp.Users, tmp_path: Path) -> None:
    asked = {"adapter.kind": "full", "adapter.target-modules": "auto", "run.rounds": 1}
    model = feddp.simulate(config(tmp_path, **asked), users).load_model()
    assert not isinstance(model, PeftModel)
    assert model.generate(torch.ones((1, 2), dtype=torch.long), max_new_tokens=2).shape[0] == 1


def test_what_real_users_gave_without_privacy_is_in_no_file_of_the_run(
    users: feddp.Users, tmp_path: Path
) -> None:
    runs, apart = tmp_path / "runs", tmp_path / "apart"
    made = feddp.simulate(
        config(runs, **{"run.rounds": 1}), users, is_comparing=True, non_private_path=apart
    )
    assert made.results["non_private"] is None
    assert "non_private" not in (made.adapter / "README.md").read_text()
    assert "NOT PRIVATE" in (apart / "own.json").read_text()
