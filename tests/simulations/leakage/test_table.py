"""What was measured is written, read back, and shown in one table."""

from math import inf
from pathlib import Path

from feddp.simulations.leakage.attacks import Attack, Interval
from feddp.simulations.leakage.suite import Ceilings, Exposure, Leakage, SensitiveTokens
from feddp.simulations.leakage.table import (
    leakage_lines,
    leakage_rows,
    read_leakage,
    write_leakage,
)

CHANCE = Attack(Interval(0.5, 0.45, 0.55), Interval(0.01, 0.0, 0.03), 0.01, 300, 300)
CAUGHT = Attack(Interval(0.9, 0.85, 0.95), Interval(0.5, 0.4, 0.6), 0.01, 300, 300)
BITS = Interval(2.0, 1.0, 3.0)
FULL = Leakage(
    CAUGHT,
    {"loss": CAUGHT, "reference": CHANCE},
    Exposure([2.0], [1.5], BITS, BITS, 100, Interval(0.0, 0.0, 0.1)),
    Interval(0.1, -0.1, 0.3),
    SensitiveTokens(1.0, 1.5, 2.0, Interval(0.5, 0.4, 0.6), 0.1, 0.2),
)


def test_the_table_has_a_column_per_model_and_the_ceiling() -> None:
    models = {
        "base": Leakage(CHANCE, {"loss": CHANCE}),
        "private": Leakage(CAUGHT, {"loss": CAUGHT}),
    }
    text = "\n".join(leakage_lines(models, Ceilings(1.0, 1e-5)))
    assert "0.900 [0.850, 0.950]" in text
    assert "0.732" in text or "0.731" in text
    assert "no proof" in text


def test_what_one_model_lacks_is_a_dash_and_what_all_lack_is_no_row() -> None:
    bare = Leakage(CHANCE, {"loss": CHANCE, "reference": CHANCE})
    rows = {title: cells for title, cells, _ in leakage_rows([bare, FULL], Ceilings(1.0, 1e-5))}
    assert rows["exposure, bits"] == ["-", "2.000 [1.000, 3.000]"]
    assert rows["poisoning gap"] == ["-", "0.100 [-0.100, 0.300]"]
    assert rows["loss, sensitive tokens"] == ["-", "1.000"]
    alone = {title for title, _, _ in leakage_rows([bare], Ceilings(1.0, 1e-5))}
    assert alone == {
        "user inference, AUC",
        "user inference, TPR at 1 % FPR",
        "example membership by loss, AUC",
        "example membership by reference, AUC",
    }


def test_every_figure_survives_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "leakage.json"
    models = {"base": Leakage(CHANCE, {"loss": CHANCE}), "private": FULL}
    for ceilings in (Ceilings(2.0, 1e-5), Ceilings(inf, 1e-5)):
        write_leakage(path, models, ceilings, {"num_users": 6})
        assert read_leakage(path) == (models, ceilings)


def test_nothing_measured_reads_as_nothing(tmp_path: Path) -> None:
    assert read_leakage(tmp_path / "leakage.json") is None
