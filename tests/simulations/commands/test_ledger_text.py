from pathlib import Path

from small_ledger import small_plan

from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.plan.ledger_entries import plan_row, start_of
from feddp.common.privacy.plan.statement import epsilon_text
from feddp.simulations.commands.ledger_text import promise_lines, spent_lines, table_lines


def test_each_row_is_a_line_with_what_it_says_and_its_hash(tmp_path: Path) -> None:
    plan, path = small_plan(), tmp_path / "ledger.sqlite"
    Ledger.create(path, plan_row(plan, "small"))
    with Ledger.open(path) as ledger:
        ledger.open_run(start_of("small", plan))
        ledger.burn(ledger.charge(1), cause="crash")
        ledger.release(ledger.charge(2), sha256="ab" * 32)
        ledger.rotate()
    content = Ledger.read_content(path)
    lines = table_lines(content)
    kinds = ["PLAN", "OPEN", "CHARGE", "BURN", "CHARGE", "RELEASE", "KEY"]
    assert [line.split()[1] for line in lines[1:]] == kinds
    for line, row in zip(lines[1:], content.rows, strict=True):
        assert line.endswith(row[4].hex()[:12])
    for part, line in zip(("small, ", "start 1", "1/1 ", "1/1 crash"), lines[1:5], strict=True):
        assert part in line


def test_the_promise_and_what_is_spent_of_it(tmp_path: Path) -> None:
    plan, path = small_plan(seed=1), tmp_path / "ledger.sqlite"
    Ledger.create(path, plan_row(plan, "small"))
    with Ledger.open(path) as ledger:
        ledger.open_run(start_of("small", plan))
        ledger.charge(1)
    history = Ledger.read(path)
    (promise,) = promise_lines(history)
    assert f"epsilon <= {epsilon_text(plan.epsilon)} (upper bound" in promise
    assert "seeded: not private" in promise
    text = "\n".join(spent_lines(history))
    assert f"charges   1 of {plan.num_charges}: 0 released, 0 burned, 1 open" in text
    assert history.head.hex() in text
