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
        user_inference=_attack(body["user_inference"]),
        membership={name: _attack(attack) for name, attack in body["membership"].items()},
        exposure=exposure and Exposure(**_with_intervals(exposure)),
        poison_gap=gap and Interval(**gap),
        sensitive_tokens=tokens and SensitiveTokens(**_with_intervals(tokens)),
    )


def _attack(body: Mapping[str, Any]) -> Attack:
    return Attack(**_with_intervals(body))


def _with_intervals(body: Mapping[str, Any]) -> dict[str, Any]:
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


def leakage_rows(models: Sequence[Leakage], ceilings: Ceilings) -> list[tuple[str, list[str], str]]:
    """(figure, one text per model, ceiling) of every attack that was run on some model."""
    first = models[0]
    rows = [
        (
            "user inference, AUC",
            [_interval(m.user_inference.auc) for m in models],
            f"{ceilings.auc:.3f}",
        ),
        (
            "user inference, TPR at 1 % FPR",
            [_interval(m.user_inference.true_positive_rate) for m in models],
            f"{ceilings.true_positive_rate:.3f}",
        ),
    ]
    for name in first.membership:
        cells = [_interval(m.membership[name].auc) for m in models]
        rows.append((f"example membership by {name}, AUC", cells, f"{ceilings.auc:.3f}"))
    exposures = [m.exposure for m in models]
    if any(exposures):
        bits = [_interval(e.mean) if e else "-" for e in exposures]
        null = [_interval(e.null_mean) if e else "-" for e in exposures]
        high = [_interval(e.share_high) if e else "-" for e in exposures]
        rows += [
            ("exposure, bits", bits, ""),
            ("  of secrets never seen (1.443)", null, ""),
            ("  share exposed >= 8 bits", high, f"{ceilings.share_high_exposure:.3f}"),
        ]
    if any(m.poison_gap for m in models):
        cells = [_interval(m.poison_gap) if m.poison_gap else "-" for m in models]
        rows.append(("poisoning gap", cells, f"{ceilings.poison_gap:.3f}"))
    return [*rows, *_token_rows(models)]


def _token_rows(models: Sequence[Leakage]) -> list[tuple[str, list[str], str]]:
    tokens = [m.sensitive_tokens for m in models]
    if not any(tokens):
        return []
    return [
        ("loss, sensitive tokens", [f"{t.sensitive:.3f}" if t else "-" for t in tokens], ""),
        ("  of held-out users", [f"{t.held_out_sensitive:.3f}" if t else "-" for t in tokens], ""),
        (
            "  held-out minus training",
            [_interval(t.controlled_gain) if t else "-" for t in tokens],
            "",
        ),
        ("  lowest 5 %", [f"{t.lowest:.3f}" if t else "-" for t in tokens], ""),
        (
            "loss, other tokens (held-out)",
            [f"{t.non_sensitive:.3f}" if t else "-" for t in tokens],
            "",
        ),
    ]


def _interval(interval: Interval) -> str:
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
