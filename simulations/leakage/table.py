"""Writes and reads leakage.json, and shows it as one table."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from feddp.common.privacy.plan.statement import delta_text, epsilon_text
from feddp.simulations.leakage.attacks import Attack, Interval
from feddp.simulations.leakage.suite import Ceilings, Exposure, Leakage, SensitiveTokens

LEAKAGE_NAME = "leakage.json"
Row = tuple[str, list[str], str]


def write_leakage(
    path: Path, models: Mapping[str, Leakage], ceilings: Ceilings, extent: Mapping[str, int]
) -> None:
    """Writes leakage.json: all figures with intervals, the ceilings, and the extent."""
    content = {
        "ceilings": asdict(ceilings),
        "extent": dict(extent),
        "models": {name: asdict(leakage) for name, leakage in models.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_leakage(path: Path) -> tuple[dict[str, Leakage], Ceilings] | None:
    """Reads leakage.json; None if nothing was measured yet."""
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    ceilings = Ceilings(content["ceilings"]["epsilon"], content["ceilings"]["delta"])
    return {name: _leakage(body) for name, body in content["models"].items()}, ceilings


def _leakage(body: Mapping[str, Any]) -> Leakage:
    exposure, tokens, gap = (body[n] for n in ("exposure", "sensitive_tokens", "poison_gap"))
    return Leakage(
        user_inference=Attack(**with_intervals(body["user_inference"])),
        membership={
            name: Attack(**with_intervals(attack)) for name, attack in body["membership"].items()
        },
        exposure=exposure and Exposure(**with_intervals(exposure)),
        poison_gap=gap and Interval(**gap),
        sensitive_tokens=tokens and SensitiveTokens(**with_intervals(tokens)),
    )


def with_intervals(body: Mapping[str, Any]) -> dict[str, Any]:
    """What was read from JSON, with every mapping as the interval that it was."""
    return {
        name: Interval(**value) if isinstance(value, dict) else value
        for name, value in body.items()
    }


def leakage_lines(models: Mapping[str, Leakage], ceilings: Ceilings) -> list[str]:
    """One table: a row per figure, a column per model, the ceiling last."""
    names = list(models)
    head = f"  {'':<38}" + "".join(f"{name:>25}" for name in names) + f"{'ceiling':>10}"
    lines = [head]
    for title, cells, ceiling in leakage_rows(list(models.values()), ceilings):
        shown = "".join(f"{cell:>25}" for cell in cells)
        lines.append(f"  {title:<38}{shown}{ceiling:>10}")
    promise = f"epsilon {epsilon_text(ceilings.epsilon)}, delta {delta_text(ceilings.delta)}, user"
    return [
        *lines,
        "",
        f"  Ceilings are those of {promise}. Brackets: 95 % intervals. An attack that fails is no "
        "proof.",
    ]


def leakage_rows(models: Sequence[Leakage], ceilings: Ceilings) -> list[Row]:
    """(figure, one text per model, ceiling) of every attack that was run on some model."""
    exposures = [m.exposure for m in models]
    tokens = [m.sensitive_tokens for m in models]
    rows = [
        _row("user inference, AUC", [m.user_inference.auc for m in models], ceilings.auc),
        _row(
            "user inference, TPR at 1 % FPR",
            [m.user_inference.true_positive_rate for m in models],
            ceilings.true_positive_rate,
        ),
        *(
            _row(
                f"example membership by {name}, AUC",
                [m.membership[name].auc for m in models],
                ceilings.auc,
            )
            for name in models[0].membership
        ),
        _row("exposure, bits", [e.mean if e else None for e in exposures]),
        _row("  of secrets never seen (1.443)", [e.null_mean if e else None for e in exposures]),
        _row(
            "  share exposed >= 8 bits",
            [e.share_high if e else None for e in exposures],
            ceilings.share_high_exposure,
        ),
        _row("poisoning gap", [m.poison_gap for m in models], ceilings.poison_gap),
        _row("loss, sensitive tokens", [t.sensitive if t else None for t in tokens]),
        _row("  of held-out users", [t.held_out_sensitive if t else None for t in tokens]),
        _row("  held-out minus training", [t.controlled_gain if t else None for t in tokens]),
        _row("  lowest 5 %", [t.lowest if t else None for t in tokens]),
        _row("loss, other tokens (held-out)", [t.non_sensitive if t else None for t in tokens]),
    ]
    return [row for row in rows if set(row[1]) != {"-"}]


def _row(
    title: str, values: Sequence[Interval | float | None], ceiling: float | None = None
) -> Row:
    return title, [_text(value) for value in values], "" if ceiling is None else _text(ceiling)


def _text(value: Interval | float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"
