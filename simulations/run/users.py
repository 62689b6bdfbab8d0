"""Users given in Python: frames, datasets, rows, files, or the demo's."""

import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from feddp.common.config.run_config import RunConfig, from_flat, to_flat
from feddp.common.data import users as data
from feddp.common.data.demo import demo_users
from feddp.common.data.sources import MEMORY, read_dataset, read_frame, read_rows
from feddp.common.data.user_index import BATCH_ROWS, group_users, open_users
from feddp.common.data.users import Columns
from feddp.common.errors import ConfigError

if TYPE_CHECKING:
    import datasets
    import pandas

DEMO = "demo"
_KEYS = ("user", "text", "messages", "prompt", "completion", "label")


class Users:
    """Rows grouped by user. Made by `from_*` or `demo`; never shows a row, an id or a count.

    Every constructor except `demo` takes the user column and one of `text`, `messages`, or `prompt`
    with `completion`; `label` is the class, for classification. A row is one example. Users are
    identified by the text of their id: 7 and "7" are one user.

    Rows given in Python are grouped in a temporary folder that only its owner can enter, and that
    is deleted with this object. Rows of a file are grouped in feddp's cache, as on the command
    line.

    Attributes:
      path: the value of `data.path`: "memory", "demo", a path, or a hub id.
      columns: which columns are read.
      table: the users themselves. Private: keep it on the machine that holds them.
    """

    def __init__(self, table: data.Users, *, path: str, columns: Columns, origin: str):
        self.table, self.path, self.columns, self._origin = table, path, columns, origin

    @classmethod
    def from_pandas(
        cls,
        frame: "pandas.DataFrame",
        *,
        user: str,
        text: str = "",
        messages: str = "",
        prompt: str = "",
        completion: str = "",
        label: str = "",
    ) -> "Users":
        """Users of a pandas frame: one row per example.

        Args:
          frame: only the named columns are read. Missing texts are empty.
          user: column of texts or whole numbers.
          text: column of plain texts.
          messages: column of chats: lists of {"role": ..., "content": ...}, or their JSON.
          prompt: column of texts without loss, with `completion`.
          completion: column of texts to learn.
          label: column of classes.

        Raises:
          ConfigError: no such combination of columns.
          DataError: a column or a user is missing, or there is no row. Messages never quote a row.
        """
        columns = _columns(user, text, messages, prompt, completion, label)
        return cls._held(read_frame(frame, columns, BATCH_ROWS), columns, "pandas", "the frame")

    @classmethod
    def from_dataset(
        cls,
        dataset: "datasets.Dataset | datasets.DatasetDict",
        *,
        user: str,
        text: str = "",
        messages: str = "",
        prompt: str = "",
        completion: str = "",
        label: str = "",
    ) -> "Users":
        """Users of a `datasets.Dataset`, or of the "train" or only split of a `DatasetDict`.

        Columns and errors are those of `from_pandas`.
        """
        columns = _columns(user, text, messages, prompt, completion, label)
        batches = read_dataset(dataset, columns, BATCH_ROWS)
        return cls._held(batches, columns, "a dataset", "the dataset")

    @classmethod
    def from_rows(
        cls,
        rows: Iterable[Mapping[str, Any]],
        *,
        user: str,
        text: str = "",
        messages: str = "",
        prompt: str = "",
        completion: str = "",
        label: str = "",
    ) -> "Users":
        """Users of mappings from columns to values, read once, so a generator works.

        Columns and errors are those of `from_pandas`.
        """
        columns = _columns(user, text, messages, prompt, completion, label)
        return cls._held(read_rows(rows, columns, BATCH_ROWS), columns, "rows", "the rows")

    @classmethod
    def from_files(
        cls,
        path: Path | str,
        *,
        user: str,
        text: str = "",
        messages: str = "",
        prompt: str = "",
        completion: str = "",
        label: str = "",
    ) -> "Users":
        """Users of a JSONL, CSV or Parquet file, a folder with a data set, or a hub id.

        A run keeps the path, so the users need not be given again to resume it. Columns and errors
        are those of `from_pandas`.
        """
        columns = _columns(user, text, messages, prompt, completion, label)
        local = Path(path).expanduser()
        place = str(local.resolve()) if local.exists() else str(path)
        return cls(open_users(place, columns=columns), path=place, columns=columns, origin=place)

    @classmethod
    def demo(cls) -> "Users":
        """The demo's generated users, whose number is public and who have no privacy to lose."""
        return cls(demo_users(), path=DEMO, columns=Columns(text="text"), origin="the demo")

    def count(self) -> int:
        """Number of users, evaluation users included.

        Private, for their owner only: declare as `privacy.num-users` a number that is or may become
        public.
        """
        return self.table.num_users

    @classmethod
    def _held(
        cls, batches: Iterator[pa.RecordBatch], columns: Columns, origin: str, source: str
    ) -> "Users":
        folder = tempfile.mkdtemp(prefix="feddp-users-")
        try:
            table = group_users(batches, Path(folder), columns=columns, source=source)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        users = cls(table, path=MEMORY, columns=columns, origin=origin)
        weakref.finalize(users, shutil.rmtree, folder, ignore_errors=True)
        return users

    def __repr__(self) -> str:
        named = ", ".join(f'{k}="{v}"' for k in _KEYS if (v := getattr(self.columns, k)))
        return f"Users(from {self._origin}: {named})"


def declare_users(
    config: RunConfig, users: Users | None, evaluation_users: Users | None = None
) -> RunConfig:
    """The checked configuration of a run on these users; nothing is read or counted.

    Args:
      config: its `data.path` is "demo" (the default) or already that of the users.
      users: all users, evaluation users included; None: those that the configuration names.
      evaluation_users: declared public or consenting, and not among `users`; None: those that the
        configuration names.

    Raises:
      ConfigError: users and configuration contradict each other, or N is not declared.
    """
    problems: list[str] = []
    changes: dict[str, object] = {}
    if users is not None and users.path != DEMO:
        if config.data.path not in (DEMO, users.path):
            problems.append(
                f'data.path = "{config.data.path}": and other users are given. Leave one of both '
                "out."
            )
        changes = {"data.path": users.path} | _column_settings(users.columns)
    elif users is not None and not config.is_generated:
        problems.append(f'data.path = "{config.data.path}": and the demo\'s users are given.')
    if evaluation_users is not None:
        if users is not None and evaluation_users.columns != users.columns:
            problems.append("evaluation_users: give them in the columns of the users.")
        if config.data.evaluation_path not in ("", evaluation_users.path):
            problems.append(
                f'data.evaluation-path = "{config.data.evaluation_path}": and other evaluation '
                "users are given. Leave one of both out."
            )
        changes["data.evaluation-path"] = evaluation_users.path
    workers = config.nodes.workers
    if workers > 1 and MEMORY in (changes.get("data.path"), changes.get("data.evaluation-path")):
        problems.append(
            f"nodes.workers = {workers}: users given in Python live in one process. Set it to 1, "
            "or use Users.from_files."
        )
    if problems:
        raise ConfigError(problems)
    return from_flat({**to_flat(config), **changes})


def _column_settings(columns: Columns) -> dict[str, object]:
    """The `data` settings for these columns."""
    named = {f"data.{key}-column": getattr(columns, key) for key in _KEYS}
    if not columns.text:
        del named["data.text-column"]  # not used beside messages or a completion
    return named


def _columns(
    user: str, text: str, messages: str, prompt: str, completion: str, label: str
) -> Columns:
    problems = []
    if not user:
        problems.append('user = "": name the column that says whose row it is.')
    if sum(map(bool, (text, messages, prompt or completion))) != 1:
        problems.append("text, messages, prompt with completion: name one of the three.")
    elif bool(prompt) != bool(completion):
        problems.append("prompt and completion: name both.")
    if problems:
        raise ConfigError(problems)
    return Columns(user, text, messages, prompt, completion, label)
