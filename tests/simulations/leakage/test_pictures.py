"""Pictures of attacks show every model that was measured, beside chance and ceiling."""

from feddp.simulations.leakage.attacks import Attack, Interval
from feddp.simulations.leakage.pictures import draw_attacks, draw_exposure
from feddp.simulations.leakage.suite import Exposure, Leakage

CHANCE = Attack(Interval(0.5, 0.45, 0.55), Interval(0.01, 0.0, 0.03), 0.01, 300, 300)
CAUGHT = Attack(Interval(0.9, 0.85, 0.95), Interval(0.5, 0.4, 0.6), 0.01, 300, 300)
EXPOSURE = Exposure(
    [1.0, 3.2], [0.5, 1.5], Interval(2.1, 1.0, 3.2), Interval(1.0, 0.5, 1.5), 100,
    Interval(0.0, 0.0, 0.1),
)  # fmt: skip


def test_every_attack_has_a_row_and_every_model_a_point_in_it() -> None:
    models = {
        "base": Leakage(CHANCE, {"loss": CHANCE, "reference": CHANCE}),
        "private": Leakage(CAUGHT, {"loss": CHANCE, "reference": CAUGHT}),
    }
    (axis,) = draw_attacks(models, ceiling=0.73).axes
    names = [text.get_text() for text in axis.get_yticklabels()]
    assert names == ["user inference", "membership, loss", "membership, reference"]
    drawn = {c.get_label(): c.lines[0].get_xdata().tolist() for c in axis.containers}
    assert drawn == {"base": [0.5, 0.5, 0.5], "private": [0.9, 0.5, 0.9]}
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert sorted(labels) == ["base", "ceiling", "private"]
    upright = [line.get_xdata()[0] for line in axis.lines if len(set(line.get_xdata())) == 1]
    assert {0.5, 0.73} <= set(upright)


def test_exposure_is_drawn_of_the_models_whose_secrets_were_ranked() -> None:
    models = {
        "base": Leakage(CHANCE, {}),
        "private": Leakage(CHANCE, {}, exposure=EXPOSURE),
    }
    figure = draw_exposure(models)
    assert figure is not None
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert sorted(labels) == ["mean without memory", "private"]
    assert sum(patch.get_height() for patch in figure.axes[0].patches) == 2  # every secret, once


def test_without_ranked_secrets_there_is_no_picture_of_exposure() -> None:
    assert draw_exposure({"base": Leakage(CHANCE, {})}) is None
