"""One seeded bug: a small change of a source file, and the tests that must fail because of it."""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


class MutantError(Exception):
    """A mutant that no longer fits the source, so that it shows nothing."""


@dataclass(frozen=True)
class Mutant:
    """A bug that somebody could introduce.

    Attributes:
      name: the bug, in a few words; unique.
      file: the source file, relative to the repository.
      changes: exact old text -> new text; each old text stands exactly once in the file.
      killed_by: pytest ids of tests that pass without the bug and fail with it.
      is_quick: part of the default test run.
    """

    name: str
    file: str
    changes: Mapping[str, str]
    killed_by: tuple[str, ...]
    is_quick: bool = False

    def apply(self, source: str) -> str:
        """The source with the bug in it.

        Raises:
          MutantError: an old text is absent or ambiguous, or the result is no Python.
        """
        for old, new in self.changes.items():
            if source.count(old) != 1:
                raise MutantError(
                    f'mutant "{self.name}": its text stands {source.count(old)} times in '
                    f"{self.file}, and must stand there once. Adapt the mutant to the new source:\n"
                    f"{old}"
                )
            source = source.replace(old, new)
        try:
            ast.parse(source)
        except SyntaxError as error:
            raise MutantError(f'mutant "{self.name}": {self.file} is no Python: {error}') from error
        return source


def missing_tests(mutant: Mutant, root: Path) -> list[str]:
    """Ids of `killed_by` whose function is not in its file."""
    missing = []
    for test in mutant.killed_by:
        path, *names = test.partition("[")[0].split("::")
        file = root / path
        tree = ast.parse(file.read_text(encoding="utf-8")) if file.is_file() else ast.Module([], [])
        found = {
            node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)
        } | {
            target.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        if not names or not set(names) <= found:
            missing.append(test)
    return missing


def table(mutants: Sequence[Mutant]) -> list[str]:
    """The rows of the table in docs/assurance.md: the bug, its file, the tests that kill it."""
    rows = ["| bug | file | killed by |", "|---|---|---|"]
    for mutant in mutants:
        tests = [test.rpartition("/")[2].replace(".py::", ": ") for test in mutant.killed_by]
        rows.append(f"| {mutant.name} | `{mutant.file}` | {'; '.join(f'`{t}`' for t in tests)} |")
    return rows
