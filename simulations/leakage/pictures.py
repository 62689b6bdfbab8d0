"""Pictures of attacks on the measured models."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from feddp.simulations.leakage.suite import Leakage
from feddp.simulations.run.pictures import BLUE, GREY, INK, RED, panel

_PALETTE = {"base": GREY, "private": BLUE, "overfitted": RED}


def draw_attacks(models: Mapping[str, Leakage], ceiling: float) -> Figure:
    """AUC of every attack on the measured models, with intervals, one row each."""
    names = ["user inference", *(f"membership, {n}" for n in models["private"].membership)]
    with panel(0.7 + 0.55 * len(names)) as (figure, axis):
        for offset, (model, leakage) in enumerate(models.items()):
            attacks = [leakage.user_inference, *leakage.membership.values()]
            values = [attack.auc.value for attack in attacks]
            errors = [
                [a.auc.value - a.auc.low for a in attacks],
                [a.auc.high - a.auc.value for a in attacks],
            ]
            heights = [index + 0.18 * (offset - 1) for index in range(len(names))]
            axis.errorbar(
                values,
                heights,
                xerr=errors,
                fmt="o",
                color=_PALETTE[model],
                label=model,
                markersize=5,
            )
        axis.axvline(0.5, color=INK, linewidth=0.8)
        axis.axvline(ceiling, color=RED, linestyle=":", linewidth=1.2, label="ceiling")
        axis.set_yticks(range(len(names)), names)
        axis.invert_yaxis()
        axis.set_xlim(0.3, 1.02)
        axis.set_xlabel("AUC (0.5 is chance)")
        axis.legend(ncols=4, loc="lower right", bbox_to_anchor=(1, 1.0), fontsize=9)
    return figure


def draw_exposure(models: Mapping[str, Leakage]) -> Figure | None:
    """Histogram of exposure in bits; None if no secret was ranked."""
    found = {name: model.exposure for name, model in models.items() if model.exposure}
    if not found:
        return None
    with panel(2.8) as (figure, axis):
        top = max(max(exposure.bits) for exposure in found.values())
        bins = [index * 0.5 for index in range(int(2 * top) + 3)]
        axis.hist(
            [exposure.bits for exposure in found.values()],
            bins=bins,
            color=[_PALETTE[name] for name in found],
            label=list(found),
        )
        axis.axvline(1.443, color=INK, linewidth=0.8, linestyle="--", label="mean without memory")
        axis.set_xlabel("exposure (bits)")
        axis.set_ylabel("secrets")
        axis.legend(fontsize=9)
    return figure
