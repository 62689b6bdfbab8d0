"""One extension of feddp as a change of its source files, and the proof that it works."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mutants.mutant import Mutant

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Change:
    """What somebody does who adds something.

    Attributes:
      name: what is added, in the words of the page.
      max_files: source files that this may take.
      proof: a file of tests in `proofs`; they pass on a copy of the repository with the change.
      new_files: source file -> the file of `new_files` that becomes it.
      edits: source file -> exact old text -> new text; each old text stands once in the file.
    """

    name: str
    max_files: int
    proof: str
    new_files: Mapping[str, str] = field(default_factory=dict)
    edits: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def files(self) -> tuple[str, ...]:
        """Every source file that it touches."""
        return (*self.new_files, *self.edits)

    def apply(self, root: Path) -> None:
        """Changes a copy of the repository.

        Raises:
          MutantError: an edit does not fit the source.
        """
        for target, name in self.new_files.items():
            assert not (root / target).exists(), target
            (root / target).write_bytes((FOLDER / "new_files" / name).read_bytes())
        for target, edit in self.edits.items():
            source = (root / target).read_text(encoding="utf-8")
            changed = Mutant(self.name, target, edit, ()).apply(source)
            (root / target).write_text(changed, encoding="utf-8")
