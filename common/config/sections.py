"""The sections of a run's configuration: every key with its default, range and meaning."""

from dataclasses import dataclass

from feddp.common.config.setting import setting


@dataclass(frozen=True)
class RunSection:
    """The run as a whole."""

    name: str | None = setting(None, "folder name of the run; auto never collides")
    seed: int | None = setting(
        None,
        "a number makes coins, training and noise repeatable, and the run not private",
        at_least=0,
    )
    rounds: int | None = setting(None, "number of rounds; auto: 50", at_least=1)
    output_dir: str = setting("runs", "parent folder of run folders")
    resume: str = setting("", "a run folder to continue; all else is read from it")


@dataclass(frozen=True)
class ModelSection:
    """The frozen base model."""

    base: str = setting("demo", '"demo", a local folder, or a hub id')
    task: str = setting("causal-lm", "what is learned", choices=("causal-lm", "classification"))
    dtype: str = setting(
        "float32", "of the frozen weights", choices=("float32", "bfloat16", "float16")
    )
    quantization: str = setting(
        "none",
        "frozen weights of 8 or 4 bits by bitsandbytes; needs a CUDA device",
        choices=("none", "8-bit", "4-bit"),
    )
    max_tokens: int = setting(128, "longest row; longer texts are cut", at_least=4)
    pooling: str = setting(
        "auto",
        'classification: the model\'s own head, or mean pooling for sentence encoders ("mean")',
        choices=("auto", "mean"),
    )


@dataclass(frozen=True)
class AdapterSection:
    """What is trained."""

    kind: str = setting(
        "ffa-lora",
        "ffa-lora: A frozen at a public seed, B trained; lora: both trained; the others, one user "
        "at a time: IA3, virtual tokens (prompt, prefix), the head alone, every weight (full)",
        choices=("ffa-lora", "lora", "ia3", "prompt", "prefix", "head", "full"),
    )
    rank: int = setting(
        8, "of the adapter; prompt, prefix: virtual tokens", at_least=1, at_most=1024
    )
    alpha: float = setting(16.0, "the adapter is scaled by alpha / rank", above=0)
    target_modules: str | None = setting(
        None, "comma-separated module names; auto: every linear layer of the blocks"
    )


@dataclass(frozen=True)
class DataSection:
    """Whose data, and which part of it. Give one of text, messages, or prompt + completion."""

    path: str = setting("demo", '"demo", JSONL, CSV, Parquet, a dataset folder, or a hub id')
    user_column: str = setting("user_id", "says whose row it is")
    text_column: str = setting("text", "plain text")
    messages_column: str = setting("", "chat messages; the loss is on the assistant's turns")
    prompt_column: str = setting("", "prompt, without loss")
    completion_column: str = setting("", "completion, with loss")
    label_column: str = setting("", "class of a row (classification)")
    labels: str = setting("", "declared classes, comma-separated; rows of others are dropped")
    max_examples_per_user: int = setting(2, "rows of one user in one round", at_least=1)
    selection: str = setting(
        "random",
        "which rows are kept of a user who has more; random-chunk: blocks of their joined texts, "
        "others each round; perplexity-high, -low: the least, most likely under the base model",
        choices=(
            "random",
            "longest",
            "shortest",
            "random-chunk",
            "perplexity-high",
            "perplexity-low",
        ),
    )
    chunk_tokens: int | None = setting(
        None, "tokens of a block, random-chunk; auto: model.max-tokens", at_least=4
    )
    evaluation_users: int | None = setting(
        None,
        "one user in this many is held out, measured without noise and not protected: SHA-256 of "
        "the id is 0 modulo it; 0: none; auto: 10 of generated users, none of others",
        at_least=0,
    )
    evaluation_path: str = setting("", "evaluation data of public or consenting users")


@dataclass(frozen=True)
class LocalSection:
    """What a user's device computes in one round."""

    epochs: int = setting(1, "passes over the user's rows", at_least=1)
    steps: int | None = setting(
        None, "most local steps; auto: as many as the epochs give", at_least=1
    )
    batch_size: int = setting(4, "rows of one local step", at_least=1)
    optimizer: str = setting("sgd", "local optimizer", choices=("sgd", "adamw"))
    learning_rate: float = setting(1.0, "local learning rate", above=0)


@dataclass(frozen=True)
class PrivacySection:
    """What is promised: about whom, how much, and by which mechanism."""

    unit: str = setting(
        "user",
        "what epsilon protects: all of a user's data, or one example",
        choices=("user", "example"),
    )
    num_users: int | None = setting(
        None, "training users N, declared and public; auto only for the demo", at_least=2
    )
    num_examples: int | None = setting(
        None,
        "where examples are drawn: how many there are in all (of each user at most "
        "data.max-examples-per-user under a user's promise), declared and public; auto only for "
        "the demo",
        at_least=2,
    )
    max_nodes_per_user: int = setting(
        1, "most nodes that hold data of one user; each draws and clips them", at_least=1
    )
    mechanism: str = setting(
        "poisson",
        "who takes part and which noise: a coin per unit; a cohort of fixed size; or correlated "
        "noise for users who take part at a distance of rounds",
        choices=("poisson", "fixed-size", "blt", "banded", "cyclic-poisson"),
    )
    target_epsilon: float = setting(8.0, "upper bound over the whole run", above=0, at_most=100)
    target_delta: float | None = setting(
        None, "auto: the smaller of 1e-5 and N^-1.1", above=0, below=1
    )
    noise_multiplier: float | None = setting(
        None, "noise / clipping norm; auto: calibrated to the target", above=0
    )
    clipping_norm: float = setting(
        0.5, "L2 bound of one unit's update in round 1; a public constant", above=0
    )
    clipping: str = setting(
        "fixed",
        "fixed: the same norm in all rounds; quantile: it follows a quantile of the updates' norms",
        choices=("fixed", "quantile"),
    )
    clipping_quantile: float = setting(
        0.5, "share of updates that are not clipped, where the norm follows it", above=0, below=1
    )
    clipping_rate: float = setting(
        0.2, "step of the logarithm of the norm, where it follows", above=0
    )
    clipping_bit_noise: float | None = setting(
        None, "noise on the count behind the quantile; auto: a twentieth of the cohort", above=0
    )
    cross_check: str = setting(
        "none",
        "`feddp plan` also prints this estimate of epsilon; it is no guarantee",
        choices=("none", "edgeworth"),
    )
    trust: str = setting(
        "simulation",
        "simulation: everything on one machine; server: the server app adds the noise; node: each "
        "node adds all of it before its sum leaves",
        choices=("simulation", "server", "node"),
    )
    population: str = setting("", "name of the users that several runs share; empty: this run only")
    ledger: str = setting("", "the population's ledger, made by `feddp ledger create`")
    ledger_key: str = setting("", "private key of the ledger; empty: beside it, in .key")
    anchor: str = setting(
        "", "file, best elsewhere, that remembers the ledger's head; an older ledger is refused"
    )


@dataclass(frozen=True)
class SamplingSection:
    """Who takes part in a round."""

    unit: str = setting(
        "user",
        "what is drawn and clipped: users, or examples (also under a user's promise, with the "
        "accounting for all of a user's examples)",
        choices=("user", "example"),
    )
    expected_cohort_size: float | None = setting(
        None, "q N, units drawn per round on average; auto: N/10, 20 to 1000", above=0
    )
    by: str = setting(
        "node",
        "who draws: each node its own users, or the server among nodes of one user each",
        choices=("node", "server"),
    )
    ask: str = setting(
        "drawn",
        "where the server draws: only the drawn nodes are asked, which the traffic shows; or all, "
        "and the answers of the others are dropped unopened",
        choices=("drawn", "all"),
    )
    separation: int | None = setting(
        None,
        "correlated noise: a user takes part in every so many rounds only; auto: N / cohort, or "
        "what leaves the least error where coins decide within a turn",
        at_least=2,
    )


@dataclass(frozen=True)
class ServerSection:
    """What the server does with a released update."""

    optimizer: str = setting(
        "fedadam", "server optimizer", choices=("fedavg", "fedavgm", "fedadam")
    )
    learning_rate: float = setting(0.02, "server learning rate", above=0)
    momentum: float = setting(0.9, "fedavgm, fedadam (beta 1)", at_least=0, below=1)
    second_momentum: float = setting(0.99, "fedadam (beta 2)", at_least=0, below=1)
    adaptivity: float = setting(1e-5, "fedadam (tau)", above=0)


@dataclass(frozen=True)
class EvaluationSection:
    """When the evaluation users are measured."""

    every: int | None = setting(None, "rounds between evaluations; auto: ten in a run", at_least=1)
    max_users: int = setting(500, "most evaluation users of a node", at_least=1)
    consent: str = setting(
        "none",
        "declared: those that data.evaluation-users holds out have agreed to be measured without "
        "protection",
        choices=("none", "declared"),
    )
    poison_users: int = setting(
        0,
        "training users who get wrong rows by a coin, to measure what is remembered of a user; "
        "simulation only",
        at_least=0,
    )


@dataclass(frozen=True)
class NodesSection:
    """Machines that hold users."""

    minimum: int = setting(2, "Flower: nodes to wait for before round 1", at_least=1)
    users_per_node: int | None = setting(
        None, "most users of one node, registered and public; auto: N", at_least=1
    )
    deadline_seconds: float = setting(600.0, "Flower: longest wait of a round", above=0)
    registry: str = setting(
        "", "Flower: file of enrolled nodes; then requests are signed and replies sealed"
    )
    server_key: str = setting("", "Flower: file of the key that signs requests")
    device: str = setting("auto", '"auto", "cpu", "cuda" or "cuda:1"')
    threads: int | None = setting(None, "CPU threads; auto: the machine's cores", at_least=1)
    workers: int = setting(
        1, "processes that share a node's users, one per accelerator or core", at_least=1
    )
    dropout: float = setting(
        0.0, "simulation: share of drawn users who do not answer in time", at_least=0, below=1
    )
    pass_tokens: int = setting(
        4096, "padded tokens of all forward passes that run beside each other", at_least=16
    )
    checkpointing: bool = setting(
        False, "compute activations again in the backward pass: less memory, more time"
    )
    compile: bool = setting(
        False, "fuse operations by torch.compile; bits may depend on who shares a pass"
    )
    cache_bytes: int = setting(
        0, "memory for what the blocks below the first adapter give, by row; 0: none", at_least=0
    )


@dataclass(frozen=True)
class TrackingSection:
    """Where metrics go besides metrics.jsonl."""

    report_to: str = setting("", "comma-separated: tensorboard, mlflow, wandb, trackio")


@dataclass(frozen=True)
class MetricsSection:
    """Prometheus metrics and health, while a run lasts."""

    port: int = setting(0, "of /metrics, /healthz, /readyz; 0: none", at_least=0, at_most=65535)
    host: str = setting("127.0.0.1", "where they listen; another address: behind a firewall")
    operator: bool = setting(
        False, "also count refused replies and nodes online, which describe individuals"
    )
