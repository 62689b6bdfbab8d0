"""Private federated fine-tuning of language models: LoRA with user-level differential privacy.

The public names below print nothing unless asked, return values, and raise `FeddpError` with what
is wrong and what to do. Each is loaded when it is first used.
"""

import os
import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

# MKL reads this at its first product. Without it, the rounding of a row can depend on where it lies
# in memory, and so on whose rows lie beside it: a user would move another user's update by a bit.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

# A Flower bundle drops links: there the five folders lie beside this one. What a bundle leaves out
# (the demo's model) is the installed package's.
if not (Path(__file__).parent / "common").is_dir():
    from pkgutil import extend_path

    __path__.append(str(Path(__file__).parents[1]))
    __path__ = extend_path(__path__, __name__)

if TYPE_CHECKING:
    from feddp.common.config.run_config import RunConfig, load_config
    from feddp.common.errors import FeddpError
    from feddp.simulations.audit.canaries import AuditExtent, audit
    from feddp.simulations.comparison.compare import compare
    from feddp.simulations.leakage.evaluate import Extent, evaluate
    from feddp.simulations.report.report import report
    from feddp.simulations.run.plan import Plan, plan
    from feddp.simulations.run.run import Run, load_run
    from feddp.simulations.run.simulate import resume, simulate
    from feddp.simulations.run.users import Users

__all__ = [
    "AuditExtent",
    "Extent",
    "FeddpError",
    "Plan",
    "Run",
    "RunConfig",
    "Users",
    "audit",
    "compare",
    "evaluate",
    "load_config",
    "load_run",
    "plan",
    "report",
    "resume",
    "simulate",
]
_HOMES = {
    "AuditExtent": "simulations.audit.canaries",
    "Extent": "simulations.leakage.evaluate",
    "FeddpError": "common.errors",
    "Plan": "simulations.run.plan",
    "Run": "simulations.run.run",
    "RunConfig": "common.config.run_config",
    "Users": "simulations.run.users",
    "audit": "simulations.audit.canaries",
    "compare": "simulations.comparison.compare",
    "evaluate": "simulations.leakage.evaluate",
    "load_config": "common.config.run_config",
    "load_run": "simulations.run.run",
    "plan": "simulations.run.plan",
    "report": "simulations.report.report",
    "resume": "simulations.run.simulate",
    "simulate": "simulations.run.simulate",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")  # a notebook without widgets
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
