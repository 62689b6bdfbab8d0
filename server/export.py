"""The results of a run: adapter folder, model card, privacy.json, result.json."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from feddp.common.assembly import load_model
from feddp.common.config.run_config import RunConfig
from feddp.common.disk import remove_times
from feddp.common.model.layout import AdapterLayout
from feddp.common.model.lora import check_export, save_adapter
from feddp.common.model.other_kinds import PLAIN_KINDS, file_name
from feddp.common.privacy.ledger.ledger import Ledger
from feddp.common.privacy.plan.plan import PrivacyPlan
from feddp.common.privacy.plan.shared_population import shared_promise
from feddp.common.privacy.plan.statement import (
    delta_text,
    epsilon_text,
    guarantee_line,
    privacy_record,
    record_to_json,
    statement,
)
from feddp.server.run import Outcome, Run

RESULT_NAME = "result.json"


def finish_run(
    run: Run, outcome: Outcome, *, layout: AdapterLayout, not_covered: Sequence[str]
) -> None:
    """Writes adapter folder, card, privacy.json and result.json; checks that PEFT can reload.

    Raises:
      ModelError: the exported adapter is not what was trained.
    """
    config = run.config
    # A fresh base: the node replaced modules in its own, and merging needs unquantized weights.
    whole = replace(config, model=replace(config.model, quantization="none"))
    base, _ = load_model(whole)
    folder = run.path / "adapter"
    save_adapter(folder, outcome.state.adapter, layout, base)
    check_export(folder, outcome.state.adapter, layout, base)
    history = Ledger.read(run.ledger_path)
    head, shared = history.head.hex(), shared_promise(history.plan)
    write_promise(run.path, run.plan, ledger_head=head, not_covered=not_covered, shared=shared)
    write_card(
        run.path, run.plan, config, results=outcome.results, not_covered=not_covered, shared=shared
    )
    text = json.dumps(outcome.results, indent=2) + "\n"
    (run.path / RESULT_NAME).write_text(text, encoding="utf-8")
    remove_times(run.path)


def write_promise(
    folder: Path,
    plan: PrivacyPlan,
    *,
    ledger_head: str,
    not_covered: Sequence[str],
    shared: Mapping[str, str | float] | None = None,
) -> None:
    """Writes privacy.json into the run folder and beside the adapter; for `shared`, see
    `shared_promise`."""
    content = dict(privacy_record(plan, ledger_head=ledger_head, not_covered=not_covered))
    if shared is not None:
        content |= {"scope": "this run, and all runs of its population", "population": shared}
    record = record_to_json(content)
    for target in (folder, folder / "adapter"):
        (target / "privacy.json").write_text(record, encoding="utf-8")


def write_card(
    folder: Path,
    plan: PrivacyPlan,
    config: RunConfig,
    *,
    results: Mapping[str, Mapping[str, float] | None],
    not_covered: Sequence[str],
    shared: Mapping[str, str | float] | None = None,
) -> None:
    """Writes the adapter's model card: how to load it, its promise, its metrics."""
    rows = [(name, values) for name, values in results.items() if values]
    metrics = list(rows[0][1]) if rows else []
    table = [
        "| | " + " | ".join(metrics) + " |",
        "|---" * (1 + len(metrics)) + "|",
        *(
            f"| {name} | " + " | ".join(f"{values[metric]:.4f}" for metric in metrics) + " |"
            for name, values in rows
        ),
    ]
    is_plain = config.adapter.kind in PLAIN_KINDS
    card = f"""---
library_name: {"transformers" if is_plain else "peft"}
base_model: {config.model.base}
tags: [{config.adapter.kind}, federated-learning, differential-privacy, feddp]
---

# A privately trained adapter

{guarantee_line(plan)}

## Load

```python
{_how_to_load(config)}
```

## The promise

{_shared_text(shared)}{statement(plan, not_covered=not_covered)}
The machine-readable form is `privacy.json`.

## Measured on the declared evaluation users

{chr(10).join(table) if rows else "There were no evaluation users."}
"""
    (folder / "adapter" / "README.md").write_text(card, encoding="utf-8")


def _shared_text(shared: Mapping[str, str | float] | None) -> str:
    if shared is None:
        return ""
    epsilon, delta = epsilon_text(float(shared["epsilon"])), delta_text(float(shared["delta"]))
    return (
        f"All runs on the population {shared['population']} together: epsilon <= {epsilon} at "
        f"delta {delta} (upper bound; {shared['mode']} of their common ledger). This run alone:\n\n"
    )


def _how_to_load(config: RunConfig) -> str:
    """Python code that loads the adapter; the demo's base and mean pooling need feddp for that."""
    labels = f"{config.labels!r}"
    if config.model.base == "demo" or config.model.pooling == "mean":
        load = (
            "from feddp.common.model.base import load_base\n"
            f'base = load_base("{config.model.base}", task="{config.model.task}", labels={labels}, '
            f'dtype="{config.model.dtype}", pooling="{config.model.pooling}").model\n'
        )
    elif config.model.task == "classification":
        load = (
            "from transformers import AutoModelForSequenceClassification\n"
            "base = AutoModelForSequenceClassification.from_pretrained(\n"
            f'    "{config.model.base}", num_labels={len(config.labels)})  # {labels}\n'
        )
    else:
        load = (
            "from transformers import AutoModelForCausalLM\n"
            f'base = AutoModelForCausalLM.from_pretrained("{config.model.base}")\n'
        )
    if config.adapter.kind in PLAIN_KINDS:
        return (
            f"from safetensors.torch import load_file\n{load}"
            f'trained = load_file("adapter/{file_name(config.adapter.kind)}")\n'
            "model = base\nmodel.load_state_dict(trained, strict=False)"
        )
    return f'from peft import PeftModel\n{load}model = PeftModel.from_pretrained(base, "adapter")'
