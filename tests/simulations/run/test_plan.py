"""What a person reads of a plan before anything is spent."""

import pytest

import feddp
from feddp.common.config.run_config import from_flat


def test_a_plan_reads_no_row_and_gives_each_number_with_its_reason() -> None:
    config = from_flat({"data.path": "nowhere.jsonl", "privacy.num-users": 500, "run.rounds": 3})
    plan = feddp.plan(config)
    assert plan.num_rounds == 3
    assert plan.epsilon <= 8
    assert plan.delta == 1e-5
    assert plan.curve()[-1] <= plan.epsilon
    assert (plan.curve()[1:] >= plan.curve()[:-1]).all()
    assert f"{plan.noise_multiplier:.4f}" in repr(plan)
    assert plan.reasons["noise_multiplier"] in repr(plan)
    assert "upper bound" in repr(plan)
    assert "<table>" in plan._repr_html_()
    assert "upper bound" in plan.statement


def test_users_in_memory_enter_by_the_names_of_their_columns_alone() -> None:
    users = feddp.Users.from_rows([{"u": "a", "t": "b"}], user="u", text="t")
    config = from_flat({"privacy.num-users": 500, "run.rounds": 3})
    assert feddp.plan(config, users).privacy_plan.population.num_users == 500
    with pytest.raises(feddp.FeddpError, match=r"privacy\.num-users"):
        feddp.plan(feddp.RunConfig(), users)
