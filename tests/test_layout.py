"""The house: what a file may hold, and where its tests stand."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("client", "common", "deploy", "server", "simulations")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 80
# Deserialisers that run code.
UNSAFE_CALLS = {
    "pickle.load",
    "pickle.loads",
    "torch.load",
    "joblib.load",
    "dill.load",
    "dill.loads",
    "np.load",
}
Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


def sources() -> list[Path]:
    """Every source file, relative to the repository."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    return [Path("feddp/__init__.py"), *sorted(path.relative_to(ROOT) for path in found)]


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text())


def public_definitions(path: Path) -> Iterator[Definition]:
    """Functions, methods and classes whose names begin without an underscore, wherever they are."""
    for node in ast.walk(tree(path)):
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node


def test_every_source_file_has_a_file_of_tests() -> None:
    named = [path for path in sources() if path.name != "__init__.py"]
    mirrors = {path: Path("tests") / path.parent / f"test_{path.name}" for path in named}
    missing = {str(path) for path, mirror in mirrors.items() if not (ROOT / mirror).exists()}
    assert missing == set()


def test_no_source_file_is_longer_than_400_lines() -> None:
    lines = {str(path): len((ROOT / path).read_text().splitlines()) for path in sources()}
    assert {path: n for path, n in lines.items() if n > MAX_FILE_LINES} == {}


def test_no_function_is_longer_than_80_lines() -> None:
    found = [
        f"{path}: {node.name}"
        for path in sources()
        for node in ast.walk(tree(path))
        if isinstance(node, Function)
        and (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert found == []


def test_every_file_and_every_public_name_says_what_it_is() -> None:
    silent = [str(path) for path in sources() if ast.get_docstring(tree(path)) is None]
    silent += [
        f"{path}:{node.lineno}: {node.name}"
        for path in sources()
        for node in public_definitions(path)
        if not ast.get_docstring(node)
    ]
    assert silent == []


def test_a_name_has_one_import_path() -> None:
    again = [
        f"{path}: {alias.name}"
        for path in sources()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name or alias.name == "*"
    ]
    assert again == []
    # An __init__ that imports hands names on; the public API alone does.
    inits = [path for path in sources() if path.name == "__init__.py" and path.parts[0] != "feddp"]
    handing_on = [
        str(path)
        for path in inits
        if any(isinstance(node, ast.Import | ast.ImportFrom) for node in tree(path).body)
    ]
    assert handing_on == []


@pytest.mark.parametrize("keyword", ["trust_remote_code", "allow_pickle"])
def test_code_of_others_is_never_run_unasked(keyword: str) -> None:
    given = [
        f"{path}:{node.lineno}"
        for path in sources()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        for argument in node.keywords
        if argument.arg == keyword and ast.unparse(argument.value) != "False"
    ]
    assert given == []


def test_nothing_is_read_by_a_format_that_runs_code() -> None:
    unsafe = [
        f"{path}:{node.lineno}: {ast.unparse(node.func)}"
        for path in sources()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in UNSAFE_CALLS
    ]
    imports = [
        f"{path}:{node.lineno}"
        for path in sources()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Import)
        and {alias.name for alias in node.names} & {"pickle", "dill"}
    ]
    assert unsafe + imports == []
