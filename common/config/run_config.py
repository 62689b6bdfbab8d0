"""RunConfig: sections, defaults, TOML and Flower run config, all errors at once."""

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from feddp.common.config import sections
from feddp.common.config.setting import AUTO, Scalar, Setting, read_value, setting_of
from feddp.common.errors import ConfigError

# What a run may spend is fixed in its plan; a filter is for runs that depend on each other.
_FILTER = (
    'Unknown key "privacy.filter". A run keeps to the fixed schedule of its plan. For several runs '
    "of which a later one may depend on an earlier, make a ledger with `feddp ledger create "
    "--filter adaptive` and name it: privacy.population and privacy.ledger."
)
# Keys that runs of before have, with why a new run has none.
RETIRED = {
    "privacy.spare-attempts": (
        "privacy.spare-attempts: there are none any more. A burned attempt is its round, so a "
        "crash costs one round and no run pays noise for it. Leave the key out."
    )
}
# Keys that came later, with what runs from before them had.
BEFORE: dict[str, object] = {"evaluation.consent": "declared"}
DEMO_EVALUATION = 10
LEDGER_KEYS = ("privacy.ledger", "privacy.ledger-key", "privacy.anchor")
FILE_KEYS = (
    "data.path",
    "data.evaluation-path",
    "model.base",
    "nodes.registry",
    "nodes.server-key",
    "run.resume",
)


@dataclass(frozen=True)
class RunConfig:
    """One run. `RunConfig()` is the demo; the same file serves every command."""

    run: sections.RunSection = field(default_factory=sections.RunSection)
    model: sections.ModelSection = field(default_factory=sections.ModelSection)
    adapter: sections.AdapterSection = field(default_factory=sections.AdapterSection)
    data: sections.DataSection = field(default_factory=sections.DataSection)
    local: sections.LocalSection = field(default_factory=sections.LocalSection)
    privacy: sections.PrivacySection = field(default_factory=sections.PrivacySection)
    sampling: sections.SamplingSection = field(default_factory=sections.SamplingSection)
    server: sections.ServerSection = field(default_factory=sections.ServerSection)
    evaluation: sections.EvaluationSection = field(default_factory=sections.EvaluationSection)
    nodes: sections.NodesSection = field(default_factory=sections.NodesSection)
    tracking: sections.TrackingSection = field(default_factory=sections.TrackingSection)
    metrics: sections.MetricsSection = field(default_factory=sections.MetricsSection)

    @property
    def is_generated(self) -> bool:
        """The users are the demo's: generated, so no person's privacy is at stake."""
        return self.data.path == "demo"

    @property
    def evaluation_one_in(self) -> int:
        """One user in this many is held out to evaluate; 0: none."""
        asked = self.data.evaluation_users
        if asked is None:
            return DEMO_EVALUATION if self.is_generated and not self.data.evaluation_path else 0
        return asked

    @property
    def labels(self) -> tuple[str, ...]:
        """The declared classes, in their declared order."""
        return tuple(label.strip() for label in self.data.labels.split(",") if label.strip())


SECTIONS: dict[str, type[Any]] = {n: type(section) for n, section in vars(RunConfig()).items()}


def settings() -> dict[str, Setting]:
    """Every setting by its dotted, kebab-case key, in the order of the sections."""
    return {
        f"{name}.{entry.name.replace('_', '-')}": setting_of(entry)
        for name, section in SECTIONS.items()
        for entry in dataclasses.fields(section)
    }


def to_flat(config: RunConfig) -> dict[str, Scalar]:
    """The configuration as dotted keys and scalars, the form of Flower's run config."""
    flat: dict[str, Scalar] = {}
    for key in settings():
        section, name = key.split(".")
        value = getattr(getattr(config, section), name.replace("-", "_"))
        flat[key] = AUTO if value is None else value
    return flat


def from_flat(flat: Mapping[str, object]) -> RunConfig:
    """Checks and reads dotted keys; absent keys keep their defaults.

    Raises:
      ConfigError: with every problem at once: unknown keys with the nearest known one, values
        of the wrong type or out of range, and settings that contradict each other.
    """
    known, problems = settings(), []
    values: dict[str, dict[str, Any]] = {}
    for key, value in flat.items():
        if key not in known:
            problems.append(_unknown(key, known))
            continue
        checked, problem = read_value(key, value, known[key])
        problems += [problem] if problem else []
        section, name = key.split(".")
        values.setdefault(section, {})[name.replace("-", "_")] = checked
    if problems:
        raise ConfigError(problems)
    config = RunConfig(
        **{name: section(**values.get(name, {})) for name, section in SECTIONS.items()}
    )
    if problems := contradictions(config):
        raise ConfigError(problems)
    return config


def contradictions(config: RunConfig) -> list[str]:
    """Settings that are valid alone but not together, one line each."""
    data, problems = config.data, []
    if not config.is_generated and config.privacy.num_users is None:
        problems.append(
            'privacy.num-users = "auto": declare the number of training users. It is public and '
            "never read from private rows; `feddp check --count-users` shows it to their owner."
        )
    if bool(data.prompt_column) != bool(data.completion_column):
        problems.append("data.prompt-column and data.completion-column: give both or neither.")
    if data.messages_column and data.prompt_column:
        problems.append("data.messages-column and data.prompt-column: give one of them.")
    if config.model.task == "classification":
        if len(config.labels) < 2:
            problems.append(
                f'data.labels = "{data.labels}": declare at least two classes, comma-separated. '
                "They are public, and never read from private rows."
            )
        if not data.label_column:
            problems.append('data.label-column = "": classification needs the column of the class.')
        if config.is_generated:
            problems.append('data.path = "demo": the generated users have no classes.')
    if config.evaluation.poison_users and not config.is_generated:
        problems.append(
            f"evaluation.poison-users = {config.evaluation.poison_users}: only generated users are "
            "marked; among real ones, who is marked would depend on who else is there."
        )
    asks_for_consent = config.evaluation_one_in and not data.evaluation_path
    if asks_for_consent and not config.is_generated and config.evaluation.consent == "none":
        problems.append(
            f"data.evaluation-users = {data.evaluation_users}: these users are measured without "
            "noise, so nothing protects them. Give other users, public or consenting, as "
            'data.evaluation-path, set 0, or say with evaluation.consent = "declared" that those '
            "who are held out have agreed."
        )
    problems += _selection_problems(config)
    if bool(config.nodes.registry) != bool(config.nodes.server_key):
        problems.append("nodes.registry and nodes.server-key: give both or neither.")
    problems += _drawing_problems(config)
    if config.privacy.num_users is not None:
        num_users, cohort = config.privacy.num_users, config.sampling.expected_cohort_size
        draws_users = config.sampling.unit == "user"
        if draws_users and cohort is not None and cohort > num_users:
            problems.append(
                f"sampling.expected-cohort-size = {cohort:g}: must be at most privacy.num-users = "
                f"{num_users}."
            )
    if bool(config.privacy.population) != bool(config.privacy.ledger):
        problems.append(
            "privacy.population and privacy.ledger: give both, or neither for a ledger of this run "
            "only. `feddp ledger create` makes the ledger of a population."
        )
    return problems


def _drawing_problems(config: RunConfig) -> list[str]:
    sampling, users_per_node = config.sampling, config.nodes.users_per_node
    if sampling.by == "node":
        if sampling.ask == "drawn":
            return []
        return ['sampling.ask = "all": is for sampling.by = "server" alone.']
    if users_per_node != 1:
        return [
            f'sampling.by = "server": needs nodes.users-per-node = 1, and not '
            f"{users_per_node or AUTO}: the server draws nodes, and a user is a node then."
        ]
    return []


def _selection_problems(config: RunConfig) -> list[str]:
    """What cannot be combined with how a user's rows are chosen."""
    data, problems = config.data, []
    if data.selection == "random":
        return []
    if config.privacy.unit == "example":
        problems.append(
            f'data.selection = "{data.selection}": must be "random" with privacy.unit = "example". '
            "A rule that ranks, caps or joins a user's examples lets one decide about another."
        )
    if data.selection != "random-chunk":
        return problems
    is_plain = config.model.task == "causal-lm" and not (data.messages_column or data.prompt_column)
    if not is_plain or config.sampling.unit == "example":
        problems.append(
            'data.selection = "random-chunk": joins the plain texts of a drawn user; not with '
            'classes, prompts, messages, or sampling.unit = "example".'
        )
    if data.chunk_tokens is not None and data.chunk_tokens > config.model.max_tokens:
        problems.append(
            f"data.chunk-tokens = {data.chunk_tokens}: must be at most model.max-tokens = "
            f"{config.model.max_tokens}."
        )
    return problems


def load_config(
    path: Path | str | None = None, overrides: Mapping[str, object] | None = None
) -> RunConfig:
    """Reads a TOML file, then applies overrides; without a file, the demo's defaults.

    Relative paths in the file are relative to the file. Overrides are relative to the working
    folder.

    Raises:
      ConfigError: the file is missing or is not TOML, or its content has problems (all at once).
    """
    flat = {} if path is None else read_flat(Path(path))
    return from_flat({**flat, **_located(overrides or {}, Path())})


def read_flat(path: Path) -> dict[str, object]:
    """The dotted keys of a TOML file, unchecked; paths in it are relative to the file."""
    return _located(_flatten(read_toml(path)), path.parent)


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
      ConfigError: it is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:  # of TOML, UTF-8, or nested too deeply
        raise ConfigError(f"{path}: is not TOML ({error}).") from error


def parse_override(text: str) -> tuple[str, object]:
    """`section.key=value` of the command line; the value is TOML, or a bare word.

    >>> parse_override("run.rounds=3")
    ('run.rounds', 3)
    >>> parse_override("model.base=demo")
    ('model.base', 'demo')
    """
    key, separator, raw = text.partition("=")
    if not separator:
        raise ConfigError(f'--set {text}: write section.key=value, as in "run.rounds=20".')
    try:
        return key.strip(), tomllib.loads(f"value = {raw}")["value"]
    except (ValueError, RecursionError):
        return key.strip(), raw


def to_toml(config: RunConfig) -> str:
    """The whole configuration as TOML, one section a paragraph; `load_config` reads it back."""
    import json

    lines, last = [], ""
    for key, value in to_flat(config).items():
        section, name = key.split(".")
        lines += [] if section == last else ["", f"[{section}]"]
        last = section
        lines.append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines[1:]) + "\n"


def _flatten(content: Mapping[str, object]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for section, entries in content.items():
        if isinstance(entries, Mapping):
            flat |= {f"{section}.{name}": value for name, value in entries.items()}
        else:
            flat[section] = entries
    return flat


def _located(flat: Mapping[str, object], folder: Path) -> dict[str, object]:
    """Makes the paths that exist below `folder` absolute; a hub id or "demo" stays what it is."""
    located = dict(flat)
    for key in FILE_KEYS:
        value = flat.get(key)
        if isinstance(value, str) and value not in ("", "demo") and _exists(folder / value):
            located[key] = str((folder / value).resolve())
    output = flat.get("run.output-dir")
    if isinstance(output, str) and "\0" not in output:
        located["run.output-dir"] = str((folder / output).resolve())
    for key in LEDGER_KEYS:
        if isinstance(value := flat.get(key), str) and value:
            located[key] = str((folder / value).resolve())
    return located


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a text that no file can have as its name
        return False


def _unknown(key: str, known: Mapping[str, Setting]) -> str:
    if key == "privacy.filter":
        return _FILTER
    if key in RETIRED:
        return RETIRED[key]
    near = difflib.get_close_matches(key.replace("_", "-"), known, n=1, cutoff=0.5)
    hint = f'Did you mean "{near[0]}"?' if near else "`feddp check --keys` lists all keys."
    return f'Unknown key "{key}". {hint}'
