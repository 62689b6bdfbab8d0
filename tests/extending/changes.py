"""The six changes of docs/extending.md."""

from extending.change import Change

SECTIONS = "common/config/sections.py"

SERVER_OPTIMIZER = Change(
    "a server optimizer",
    max_files=2,
    proof="prove_server_optimizer.py",
    edits={
        "server/optimizer.py": {
            "FedAvgM and FedAdam": "FedAvgM, FedAdam and Lion",
            'kind: "fedavg", "fedavgm" or "fedadam".': (
                'kind: "fedavg", "fedavgm", "fedadam" or "lion".'
            ),
            "momentum: of fedavgm; beta 1 of fedadam.": (
                "momentum: of fedavgm; beta 1 of fedadam and lion."
            ),
            "second_momentum: beta 2 of fedadam.": "second_momentum: beta 2 of fedadam and lion.",
            (
                '        names = {"fedavg": (), "fedavgm": ("first",), "fedadam": ("first", '
                '"second")}[self.kind]\n'
            ): """\
        names = {
            "fedavg": (),
            "fedavgm": ("first",),
            "fedadam": ("first", "second"),
            "lion": ("first",),
        }[self.kind]
""",
            """\
        first = moments["first"]
        first *= self.momentum
""": """\
        first = moments["first"]
        if self.kind == "lion":
            sign = np.sign(self.momentum * first + (1 - self.momentum) * update)
            first *= self.second_momentum
            first += (1 - self.second_momentum) * update
            return sign
        first *= self.momentum
""",
        },
        SECTIONS: {
            """\
        "fedadam", "server optimizer", choices=("fedavg", "fedavgm", "fedadam")
""": """\
        "fedadam", "server optimizer", choices=("fedavg", "fedavgm", "fedadam", "lion")
""",
        },
    },
)

ADAPTER_KIND = Change(
    "an adapter kind",
    max_files=2,
    proof="prove_adapter_kind.py",
    edits={
        "common/model/other_kinds.py": {
            'PLAIN_KINDS = ("head", "full")': 'PLAIN_KINDS = ("head", "full", "bias")',
            """\
    if base.task == "causal-lm":
        output = model.get_output_embeddings()""": """\
    if kind == "bias":
        heads = {entry.name for entry, _ in head_entries(base)}
        named = {PEFT_PREFIX + name: parameter for name, parameter in parameters.items()}
        return {n: p for n, p in named.items() if n.endswith(".bias") or n in heads}
    if base.task == "causal-lm":
        output = model.get_output_embeddings()""",
        },
        SECTIONS: {
            """\
        "at a time: IA3, virtual tokens (prompt, prefix), the head alone, every weight (full)",
        choices=("ffa-lora", "lora", "ia3", "prompt", "prefix", "head", "full"),
""": """\
        "at a time: IA3, virtual tokens (prompt, prefix), the head alone, the biases (bias), every "
        "weight (full)",
        choices=("ffa-lora", "lora", "ia3", "prompt", "prefix", "head", "bias", "full"),
""",
        },
    },
)

MECHANISM = Change(
    "a mechanism",
    max_files=3,
    proof="prove_mechanism.py",
    new_files={"common/privacy/mechanism/everyone.py": "everyone.py"},
    edits={
        "common/privacy/mechanism/mechanisms.py": {
            """\
from feddp.common.privacy.mechanism.events import Charges
""": """\
from feddp.common.privacy.mechanism.events import Charges
from feddp.common.privacy.mechanism.everyone import EVERYONE
""",
            "(POISSON, FIXED_SIZE, BLT, BANDED, CYCLIC_POISSON)": (
                "(POISSON, FIXED_SIZE, BLT, BANDED, CYCLIC_POISSON, EVERYONE)"
            ),
        },
        SECTIONS: {
            """\
        "who takes part and which noise: a coin per unit; a cohort of fixed size; or correlated "
        "noise for users who take part at a distance of rounds",
        choices=("poisson", "fixed-size", "blt", "banded", "cyclic-poisson"),
""": """\
        "who takes part and which noise: a coin per unit; a cohort of fixed size; everyone; or "
        "correlated noise for users who take part at a distance of rounds",
        choices=("poisson", "fixed-size", "blt", "banded", "cyclic-poisson", "everyone"),
""",
        },
    },
)

LOCAL_METHOD = Change(
    "a local method",
    max_files=2,
    proof="prove_local_method.py",
    new_files={"client/engine/methods/momentum.py": "momentum.py"},
    edits={
        SECTIONS: {
            """\
    optimizer: str = setting("sgd", "local optimizer", choices=("sgd", "adamw"))
""": """\
    optimizer: str = setting("sgd", "local optimizer", choices=("sgd", "adamw", "momentum"))
""",
        },
    },
)

EVALUATION_NUMBER = Change(
    "one more evaluation number",
    max_files=3,
    proof="prove_evaluation_number.py",
    edits={
        "common/evaluation.py": {
            """\
      num_correct: how many of them the largest logit got right.
""": """\
      num_correct: how many of them the largest logit got right.
      num_in_top5: how many of them one of the five largest logits got right.
""",
            "num_targets=10, num_correct=5)": "num_targets=10, num_correct=5, num_in_top5=0)",
            """\
    num_correct: int = 0
""": """\
    num_correct: int = 0
    num_in_top5: int = 0
""",
            """\
        return math.isfinite(self.loss_sum) and 0 <= self.num_correct <= self.num_targets
""": """\
        counts = (self.num_correct, self.num_in_top5)
        return math.isfinite(self.loss_sum) and all(0 <= n <= self.num_targets for n in counts)
""",
            """\
        return self.num_correct / self.num_targets

""": """\
        return self.num_correct / self.num_targets

    @property
    def top5(self) -> float:
        \"\"\"Share of positions or rows that one of the five largest logits got right.\"\"\"
        return self.num_in_top5 / self.num_targets

""",
            '"causal-lm": ("loss", "perplexity"),': (
                '"causal-lm": ("loss", "perplexity", "top5"),'
            ),
        },
        "client/engine/loss.py": {
            """\
      corrects: bool, shape (positions,), whether the largest logit is right.
""": """\
      corrects: bool, shape (positions,), whether the largest logit is right.
      in_top5: bool, shape (positions,), whether one of the five largest is right.
""",
            """\
    corrects: Tensor

""": """\
    corrects: Tensor
    in_top5: Tensor

""",
            """\
        return cls(losses, logits.argmax(1) == targets)
""": """\
        top5 = logits.topk(min(5, logits.shape[1])).indices
        return cls(losses, logits.argmax(1) == targets, (top5 == targets[:, None]).any(1))
""",
            """\
            num_correct=int(self.corrects.sum()),
""": """\
            num_correct=int(self.corrects.sum()),
            num_in_top5=int(self.in_top5.sum()),
""",
        },
    },
)

SOURCE = Change(
    "a source of data",
    max_files=1,
    proof="prove_source.py",
    edits={
        "common/data/sources.py": {
            '"""JSONL, CSV, Parquet,': '"""JSONL, CSV, TSV, Parquet,',
            'SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")': (
                'SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")'
            ),
            '    readers = {".csv": _read_csv, ".parquet": _read_parquet}\n': (
                '    readers = {".csv": _read_csv, ".tsv": _read_csv, ".parquet": _read_parquet}\n'
            ),
            '"""CSV; its blocks are bounded in bytes,': (
                '"""CSV or TSV; its blocks are bounded in bytes,'
            ),
            "    parse = pa.csv.ParseOptions(newlines_in_values=True)\n": """\
    delimiter = "\\t" if path.suffix == ".tsv" else ","
    parse = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
""",
        },
    },
)

CHANGES = (
    SERVER_OPTIMIZER,
    ADAPTER_KIND,
    MECHANISM,
    LOCAL_METHOD,
    EVALUATION_NUMBER,
    SOURCE,
)
