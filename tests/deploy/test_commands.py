import pytest
import typer

from feddp.common.errors import BudgetSpentError
from feddp.deploy.commands import run_app, run_tool


def app_that(ending: BaseException | None) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    def end(context: typer.Context) -> None:
        typer.echo(context.obj)
        if ending is not None:
            raise ending

    return app


def test_a_command_that_returns_ends_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(app_that(None), "tool", [], obj="the line") == 0
    assert capsys.readouterr().out == "the line\n"


def test_a_command_chooses_its_exit_code() -> None:
    assert run_app(app_that(typer.Exit(3)), "tool", []) == 3


def test_an_error_of_feddp_is_its_text_and_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(app_that(BudgetSpentError("spent")), "tool", []) == 6
    assert capsys.readouterr().err == "tool: spent\n"


def test_a_wrong_command_line_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(app_that(None), "tool", ["--unknown"]) == 2
    assert "--unknown" in capsys.readouterr().err


def test_a_file_that_a_tool_cannot_write_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_tool(app_that(PermissionError(13, "Permission denied", "x.key")), "tool", []) == 1
    assert capsys.readouterr().err == "tool: [Errno 13] Permission denied: 'x.key'\n"


def test_a_mistake_of_the_program_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run_tool(app_that(ZeroDivisionError()), "tool", [])
