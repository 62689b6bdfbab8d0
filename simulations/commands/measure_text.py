"""The output and exit codes of feddp evaluate, audit, compare and report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from feddp.common.config.run_config import RunConfig
from feddp.common.privacy.plan.plan import PrivacyPlan
from feddp.simulations.audit.bounds import AuditResult
from feddp.simulations.audit.canaries import AuditExtent, about_lines, audit, result_line
from feddp.simulations.comparison.cells import Cell, Grid
from feddp.simulations.comparison.compare import announcement_lines, compare, outcome_text
from feddp.simulations.comparison.table import COMPARISON_NAME
from feddp.simulations.leakage.evaluate import Extent, evaluate
from feddp.simulations.report.report import PICTURES_NAME, report


def show_evaluation(path: Path, extent: Extent, *, measurements_path: Path | None) -> int:
    """Prints the leakage table; the exit code is 1 if a figure exceeds its ceiling."""

    def show_control() -> None:
        """Says that the control begins."""
        print("The positive control: few users, without privacy, many times over ...", flush=True)

    found = evaluate(
        path, extent=extent, measurements_path=measurements_path, on_control=show_control
    )
    print(f"{found!r}\n\n  {found.path}")
    for name in found.violations:
        print(f"  ABOVE ITS CEILING: {name}. The promise does not hold; do not publish this run.")
    return 1 if found.violations else 0


def show_audit(
    config: RunConfig, extent: AuditExtent, *, is_private_data: bool, output_path: Path | None
) -> int:
    """Prints each result as it arrives; the exit code is 1 if one is not as expected."""
    claim = 0.0

    def show_plan(plan: PrivacyPlan) -> None:
        """What is audited; keeps its epsilon for the results."""
        nonlocal claim
        claim = plan.epsilon
        print("\n".join(about_lines(plan, extent)), flush=True)

    def show_result(name: str, result: AuditResult) -> None:
        """A bound beside the claim."""
        print(result_line(name, result, claim), flush=True)

    found = audit(
        config,
        extent=extent,
        is_private_data=is_private_data,
        on_plan=show_plan,
        on_result=show_result,
    )
    print(
        "\n  Bounds hold at 95 % confidence each. A bound above the claim refutes it; one below "
        "proves nothing. The two\n  controls are not private on purpose, and nothing of them is "
        "kept."
    )
    if output_path is not None:
        output_path.write_text(found.to_json(), encoding="utf-8")
    return 0 if found.is_as_expected else 1


def show_comparison(
    path: Path,
    overrides: Mapping[str, object],
    *,
    output_path: Path,
    num_processes: int | None,
    is_quick: bool,
    is_private_data: bool,
    command: str,
) -> int:
    """Prints each cell as it is done, and the table."""

    def show_start(grid: Grid, cells: Sequence[Cell], num_processes: int) -> None:
        """What is going to run."""
        print("\n".join(announcement_lines(grid, cells, num_processes)), flush=True)

    def show_cell(cell: Cell, result: Mapping[str, Any]) -> None:
        """How a cell ended."""
        print(f"  {cell.name:<44} {outcome_text(result)}", flush=True)

    found = compare(
        path,
        overrides,
        output_path=output_path,
        num_processes=num_processes,
        is_quick=is_quick,
        is_private_data=is_private_data,
        command=command,
        on_start=show_start,
        on_cell=show_cell,
    )
    print(f"\n{found!r}\n  {output_path / COMPARISON_NAME}")
    print(f"  a page with pictures: feddp report {output_path}")
    return 0


def show_report(folder: Path) -> int:
    """Writes the page and prints its path."""
    path = report(folder)
    print(f"{path}: open it in a browser; pictures (SVG, PNG) and CSV are in {PICTURES_NAME}/.")
    return 0
