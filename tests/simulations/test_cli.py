import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import click
import pytest
from command_line import check_words, command_of, leaves, words_of

from feddp.common.config.run_config import settings
from feddp.common.errors import FeddpError
from feddp.deploy import certificates, keys
from feddp.simulations.cli import EXIT_CODES, FILES, app_of, main

ROOT = Path(__file__).parents[2]
CONFIGURED = "[CONFIG.toml=path] --set=text* --output-dir=text"

# Whoever takes a word from here breaks somebody's script.
SURFACE = {
    "feddp simulate": f"{CONFIGURED} --resume=path --with-non-private --non-private-dir=path "
    "--new-noise-segment",
    "feddp plan": f"{CONFIGURED} --group-size --proxy=text --picture=path",
    "feddp check": f"{CONFIGURED} --keys --count-users",
    "feddp chat": "RUN=path --prompt=text --max-new-tokens=integer(60) --temperature=float(0.7)",
    "feddp evaluate": "RUN=path --users=integer(300) --secrets=integer(20) "
    "--unknown-digits=1..6(3) --overfit=integer(0) --measurements-dir=path",
    "feddp audit": f"{CONFIGURED} --canaries=integer(1000) --users=integer(100) "
    "--rounds=integer(5) --sampling-probability=float(1.0) --output=path --on-private-data",
    "feddp compare": "CONFIG.toml=path --set=text* --output-dir=path --processes=integer --quick "
    "--on-private-data",
    "feddp report": "RUN_OR_COMPARISON=path",
    "feddp bench": "--repeats=integer(3) --only={users,examples,pfl,flower,server,memory,"
    "vocabulary,population}* --output-dir=path(bench) --gpu",
    "feddp ledger show": "LEDGER_OR_RUN=path",
    "feddp ledger verify": "LEDGER_OR_RUN=path --anchor=path",
    "feddp ledger export": "LEDGER_OR_RUN=path",
    "feddp ledger anchor": "LEDGER_OR_RUN=path --file=path!",
    "feddp ledger rotate": "LEDGER_OR_RUN=path",
    "feddp ledger backup": "LEDGER_OR_RUN=path --file=path!",
    "feddp ledger create": "LEDGER=path --population=text! --config=path* "
    "--num-users=integer --target-epsilon=float --target-delta=float --runs=integer(1) "
    "--filter={fixed-schedule,adaptive}(fixed-schedule)",
    "feddp node serve": "--address=text! [CONFIG.toml=path] --data=text --set=text* "
    "--part=text(0/1) --name=text --key=path --server-key=path --state=path --ledger=path "
    "--token=path",
    "feddp node keygen": "FILE=path",
    "feddp node enroll": "REGISTRY=path NAME=text --public-key=path! --users=integer!",
    "feddp node rotate": "REGISTRY=path NAME=text --public-key=path!",
    "feddp node revoke": "REGISTRY=path NAME=text",
    "feddp node list": "REGISTRY=path",
    "feddp deploy local": f"{CONFIGURED} --unsealed --nodes=integer --keep=path",
    "feddp deploy resume": "RUN=path --nodes=integer --keep=path",
    "certificates ca": "FOLDER=path",
    "certificates issue": "FOLDER=path NAME=text [HOST...=text] --days=integer(365)",
    "certificates renew": "FOLDER=path NAME=text --days=integer(365)",
    "certificates revoke": "FOLDER=path NAME=text",
    "certificates renew-crl": "FOLDER=path",
    "certificates list": "FOLDER=path",
    "keys supernode": "FILE=path",
    "keys secret": "FILE=path",
}


def test_every_command_and_option_is_where_it_was() -> None:
    programs = {
        "feddp": app_of(),
        "certificates": certificates.app,
        "keys": keys.app,
    }
    found = {
        name: words_of(command)
        for program, app in programs.items()
        for name, command in leaves(command_of(app), program)
    }
    assert found == SURFACE


def test_each_command_is_in_the_file_that_is_loaded_for_it() -> None:
    for file, commands in FILES.items():
        root = command_of(app_of([file]))
        assert isinstance(root, click.Group)
        assert tuple(root.commands) == commands


# Start

HEAVY = {"torch", "flwr", "pydantic", "numpy", "transformers", "peft", "scipy", "dp_accounting"}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["ledger", "--help"], 0),
        (["node", "serve", "--help"], 0),
        (["plan", "--set", "privacy.noise_multiplier=1"], 2),
        (["simulate", "--set", "privacy.noise_multiplier=1"], 2),
        (["plan", "--no-such-option"], 2),
    ],
)
def test_help_and_mistakes_are_answered_before_anything_heavy_is_imported(
    words: list[str], code: int
) -> None:
    script = (
        "import sys; from feddp.simulations.cli import main; code = main(sys.argv[1:]);"
        f"print('heavy:', sorted({HEAVY!r} & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (code, "heavy: []")
    if "privacy.noise_multiplier=1" in words:
        assert done.stderr.strip() == (
            'feddp: Unknown key "privacy.noise_multiplier". Did you mean '
            '"privacy.noise-multiplier"?'
        )


def test_the_version_is_the_installed_ones(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "1.2.3")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "feddp 1.2.3\n"


def test_completion_offers_commands_and_actions(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_FEDDP_COMPLETE", "complete_bash")
    for line, word in (("feddp led", "ledger"), ("feddp ledger ver", "verify")):
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
        assert main([]) == 0
        assert capsys.readouterr().out.split() == [word]


# Exit codes


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "Usage: feddp"),
        (["plann"], "Did you mean 'plan'?"),
        (["plan", "--group"], "Did you mean '--group-size'?"),
        (["chat"], "Missing argument 'RUN'"),
        (["ledger", "create", "x"], "Missing option '--population'"),
        (["evaluate", "x", "--unknown-digits", "7"], "range 1<=x<=6"),
        (["chat", "x", "--max-new-tokens", "many"], "not a valid integer"),
        (["bench", "--only", "nothing"], "is not one of"),
        (["report", "x", "y"], "unexpected extra argument"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong_and_ends_with_2(
    words: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    printed = capsys.readouterr()
    assert part in printed.out + printed.err
    assert "Traceback" not in printed.err


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (OSError(28, "No space left on device"), 8, "Free or repair the disk, then resume."),
        (KeyboardInterrupt(), 130, "interrupted; nothing uncharged was released."),
        (FeddpError("what is wrong"), 1, "feddp: what is wrong\n"),
    ],
)
def test_an_error_of_a_command_is_one_line_and_its_exit_code(
    error: BaseException,
    code: int,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("feddp.simulations.commands.plan.config_of", fail)
    assert main(["plan"]) == code
    printed = capsys.readouterr().err
    assert text in printed
    assert len(printed.splitlines()) == 1


def test_a_run_that_is_not_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["simulate", "--resume"], ["ledger", "verify"], ["chat"]):
        assert main([*arguments, str(tmp_path / "none")]) == 2
        error = capsys.readouterr().err
        assert "no run here" in error
        assert "Traceback" not in error


def test_every_exit_code_of_an_error_is_documented() -> None:
    def below(kind: type[FeddpError]) -> Iterator[type[FeddpError]]:
        yield kind
        for each in kind.__subclasses__():
            yield from below(each)

    assert {kind.exit_code for kind in below(FeddpError)} <= set(EXIT_CODES)


# Texts


def usage_of(name: str, command: click.Command) -> str:
    """A command with what it cannot do without."""
    context = click.Context(command)
    words = [name]
    for each in command.params:
        if isinstance(each, click.Argument):
            words.append(each.make_metavar(context))
        elif each.required:
            words += [each.opts[0], each.make_metavar(context)]
    return " ".join(words)


def page() -> str:
    """The tables of docs/commands.md."""
    root = command_of()
    assert isinstance(root, click.Group)
    panels: dict[str, list[str]] = {}
    for name, command in leaves(root, "feddp"):
        panel = vars(root.commands[name.split()[1]])["rich_help_panel"]
        row = f"| `{usage_of(name, command)}` | {command.help} |"
        panels.setdefault(panel, []).append(row)
    parts = [
        f"## {panel}\n\n| command | what it does |\n|---|---|\n" + "\n".join(rows)
        for panel, rows in panels.items()
    ]
    codes = "\n".join(f"| {code} | {about} |" for code, about in EXIT_CODES.items())
    return "\n\n".join([*parts, f"## Exit codes\n\n| code | meaning |\n|---|---|\n{codes}"]) + "\n"


def test_the_page_of_commands_is_the_apps() -> None:
    assert (ROOT / "docs" / "commands.md").read_text(encoding="utf-8").endswith(page())


KNOWN = {command for commands in FILES.values() for command in commands}
FOLDERS = ("common", "client", "server", "deploy", "simulations", "feddp")
SOURCES = sorted(
    path
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
    if not any(part.is_symlink() for part in path.parents)
)
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "Makefile", "deploy/feddp-role")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "simulations" / "presets").glob("*.toml")),
]


def texts_of(path: Path) -> Iterator[str]:
    """A page as it is, or the strings of a source file; "X" where a value is put in."""
    content = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield content
        return
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values
            )


def lines_of(text: str) -> Iterator[list[str]]:
    """The words after "feddp" that a text shows: between backticks, or after a known command."""
    text = text.replace("\\\n", " ")
    for line in re.findall(r"(?<!`)`feddp ([^`]+)`(?!`)", text):
        yield words_in(line)
    for line in re.findall(r"\bfeddp ([a-z]+\b[^`\n]*)", text):
        if line.split()[0].rstrip(":") in KNOWN:
            yield words_in(line)


def words_in(line: str) -> list[str]:
    """Its words up to a comment, an alternative or the rest of a sentence."""
    command = re.split(r" [|#(]|[;,] | > |:( |$)| && ", line)[0]
    return [bare for word in command.split() if (bare := word.strip("\"'.`"))]


@pytest.mark.parametrize("path", [*SOURCES, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_no_text_names_a_command_or_an_option_that_does_not_exist(path: Path) -> None:
    known = settings()
    for text in texts_of(path):
        for words in lines_of(text):
            for key in (each.partition("=")[0] for each in check_words(words)):
                assert key in known or key.startswith("compare."), words
