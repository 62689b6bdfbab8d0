"""feddp.report: a run or a comparison as one page, with its pictures and numbers beside it."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from feddp.common.privacy.plan.statement import guarantee_line, statement
from feddp.common.tracking import read_metrics
from feddp.server.publisher import METRICS_NAME
from feddp.server.run import CONFIG_NAME, Run, load_run
from feddp.simulations.comparison.pictures import draw_against_epsilon, draw_noise
from feddp.simulations.comparison.table import (
    Row,
    example_epsilon,
    is_comparison,
    number,
    read_rows,
    shown,
)
from feddp.simulations.leakage.pictures import draw_attacks, draw_exposure
from feddp.simulations.leakage.table import LEAKAGE_NAME, leakage_rows, read_leakage
from feddp.simulations.report.page import (
    bullets,
    folded,
    heading,
    page,
    paragraph,
    picture,
    promise,
    table,
    verbatim,
)
from feddp.simulations.run.console import result_rows
from feddp.simulations.run.pictures import curves_of, save
from feddp.simulations.run.run import Run as OpenRun
from feddp.simulations.run.run import path_of
from feddp.simulations.run.simulate import COMMAND_NAME

REPORT_NAME, PICTURES_NAME = "report.html", "pictures"
_FIGURES = {
    "loss": "held-out loss (nats)",
    "accuracy": "held-out accuracy",
    "user_inference": "user inference, AUC",
    "exposure": "exposure (bits)",
}


def report(folder: OpenRun | Path | str) -> Path:
    """Writes report.html into a run or comparison folder, and pictures and CSV beside it.

    Args:
      folder: a run, its folder, or that of a comparison.

    Returns:
      The page.

    Raises:
      ConfigError: the folder is neither.
    """
    place = path_of(folder)
    text = _comparison_page(place) if is_comparison(place) else _run_page(load_run(place))
    path = place / REPORT_NAME
    path.write_text(text, encoding="utf-8")
    return path


def _run_page(run: Run) -> str:
    pictures = run.path / PICTURES_NAME
    lines = read_metrics(run.path / METRICS_NAME)
    curves = save(curves_of(run.path, run.plan), pictures, "curves")
    _write_csv(pictures / "curves.csv", lines)
    record = _read_json(run.path / "privacy.json")
    not_covered = list((record or {}).get("not_covered", []))
    parts = [
        promise([guarantee_line(run.plan)]),
        heading("What was learnt, and what it cost"),
        picture(
            curves,
            "Above, the loss on the declared evaluation users. Below, epsilon after each round; "
            "the dotted line is the target, and the planned value holds also after an early stop.",
        ),
        *_results(run),
        *_leakage(run.path / LEAKAGE_NAME, pictures),
        heading("The promise"),
        *_statement(statement(run.plan, not_covered=not_covered)),
        heading("How it was made"),
        verbatim(f"{_commands(run)}\nfeddp ledger verify {run.path.name}"),
        folded("config.toml", (run.path / CONFIG_NAME).read_text(encoding="utf-8")),
        folded("plan.json", run.plan.to_json()),
    ]
    about = f"{run.plan.num_users} users, base model {Path(run.config.model.base).name}"
    lead = f"A private fine-tuning run of feddp: {run.plan.num_rounds} rounds over {about}."
    return page(f"Run {run.path.name}", lead, parts)


def _statement(text: str) -> list[str]:
    """The paragraphs and lists of a statement in Markdown."""
    parts = [part.strip() for part in text.replace("**", "").split("\n\n")]
    return [
        bullets([line.removeprefix("- ") for line in part.split("\n")])
        if part.startswith("- ")
        else paragraph(part)
        for part in parts
        if part
    ]


def _commands(run: Run) -> str:
    """The command lines that made a run; if they were not kept, one that would."""
    path = run.path / COMMAND_NAME
    if path.is_file():
        return path.read_text(encoding="utf-8").strip()
    return f"feddp simulate {CONFIG_NAME}"


def _results(run: Run) -> list[str]:
    head, rows = result_rows(_read_json(run.path / "result.json") or {}, run.plan)
    if not rows:
        return [paragraph("There are no results yet, or no evaluation users.", "note")]
    return [table(head[:-1], [row[:-1] for row in rows])]


def _leakage(path: Path, pictures: Path) -> list[str]:
    found = read_leakage(path)
    title = heading("What it leaks")
    if found is None:
        text = "Not measured. `feddp evaluate RUN` does, then make this page again."
        return [title, paragraph(text, "note")]
    models, ceilings = found
    parts = [
        title,
        picture(
            save(draw_attacks(models, ceilings.auc), pictures, "attacks"),
            "How well each attack tells members from non-members, with 95 % intervals. The base "
            "model has seen nobody: it is the negative control. The ceiling is what the promise "
            "allows; an attack that fails is no proof.",
        ),
    ]
    if (figure := draw_exposure(models)) is not None:
        caption = "Exact exposure of planted secrets: the bits of each that the model gives away."
        parts.append(picture(save(figure, pictures, "exposure"), caption))
    rows = [
        [title.strip(), *cells, ceiling]
        for title, cells, ceiling in leakage_rows(list(models.values()), ceilings)
    ]
    head = [*models, "ceiling"]
    _write_csv(
        pictures / "leakage.csv", [dict(zip(["figure", *head], row, strict=True)) for row in rows]
    )
    return [*parts, table(["", *head], rows)]


def _comparison_page(folder: Path) -> str:
    command, rows, differences = read_rows(folder)
    pictures = folder / PICTURES_NAME
    parts = [
        promise(
            [
                "All rows use the same examples per round. Epsilons are upper bounds at the same "
                "delta; seeded runs repeat and are labelled not private.",
                "Choosing among these rows by their results on private users would itself be a "
                "use of them: each look is a run of its own, and costs its epsilon.",
            ]
        ),
        heading("Side by side"),
        _full_table(
            ["method", "G", "user ε", "example ε", "black box ε", "noise / C", "loss", "accuracy",
             "user inference", "exposure", "poison gap", "tokens ≤", "CPU s"],
            [_cells(row) for row in rows],
        ),
        paragraph(
            "Brackets: 95 % intervals over seeds; one seed has none. Where users are drawn, an "
            "example has at most its user's ε. Tokens: expected, if every example filled a row.",
            "note",
        ),
    ]  # fmt: skip
    if differences:
        parts += [
            paragraph("Differences between rows, seed by seed, with their 95 % intervals:", "note"),
            table(
                ["", "G", "user ε", "figure", "difference"],
                [
                    [
                        f"{d.method} − {d.other} {d.adapter}".strip(),
                        str(d.group_size),
                        f"{d.epsilon:g}",
                        d.figure.replace("_", " "),
                        shown(d.interval, is_signed=True),
                    ]
                    for d in differences
                ],
            ),
        ]
    for name, label in _FIGURES.items():
        if not any(name in row.metrics or name in row.leakage for row in rows):
            continue
        if (figure := draw_against_epsilon(rows, name, label)) is not None:
            title = label[0].upper() + label[1:]
            drawn = save(figure, pictures, name.replace("_", "-"))
            parts += [heading(title), picture(drawn, f"{title} against the epsilon of a user.")]
    if (figure := draw_noise(rows)) is not None:
        caption = (
            "Noise in a released update over the clipping norm. Users drawn (uls) have more of it, "
            "and gain from averaging what one user sends: they win where the norm of a mean of G "
            "updates, over that of one, is below the ratio of the two lines."
        )
        noise = picture(save(figure, pictures, "noise"), caption)
        parts += [heading("Where the units cross"), noise]
    config = (folder / CONFIG_NAME).read_text(encoding="utf-8")
    parts += [heading("How it was made"), verbatim(command), folded(CONFIG_NAME, config)]
    return page(
        "What privacy costs, and what it stops", f"A comparison by feddp: {folder.name}.", parts
    )


def _full_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table without its empty columns."""
    kept = [i for i in range(len(head)) if any(row[i] not in ("-", "–", "") for row in rows)]
    cells = [["–" if row[i] == "-" else row[i] for i in kept] for row in rows]
    return table([head[i] for i in kept], cells, is_wide=True)


def _cells(row: Row) -> list[str]:
    found = row.promise or {}
    if row.reason:
        reason = f"not available: {row.reason}"
        return [row.method, str(row.group_size), *["–"] * 4, reason, *[""] * 6]
    user, black_box, noise = (
        number(found.get(key)) for key in ("user_epsilon", "black_box_epsilon", "noise_to_signal")
    )
    metrics = [shown(row.metrics.get(name)) for name in ("loss", "accuracy")]
    leaks = [shown(row.leakage.get(n)) for n in ("user_inference", "exposure", "poison_gap")]
    example = example_epsilon(row).replace("<=", "≤")
    size = [f"{row.tokens / 1e6:.2f} M" if row.tokens else "–", f"{row.seconds:.0f}"]
    numbers = [user, example, black_box, noise]
    return [row.label, str(row.group_size), *numbers, *metrics, *leaks, *size]


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def _read_json(path: Path) -> dict[str, Any] | None:
    """The content of a file; None if it does not exist yet."""
    if not path.is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
