"""How a client app finds and asks the resident node."""

from pathlib import Path

import pytest

from feddp.client.service.resident import ResidentError, ask_resident, read_token, token_path


def test_a_token_lies_beside_its_socket(tmp_path: Path) -> None:
    path = token_path(f"unix:{tmp_path / 's'}")
    assert path == tmp_path / "s.token"
    path.write_text("secret\n")
    assert read_token(path) == "secret"


def test_a_token_that_cannot_be_read_means_that_the_node_is_absent(tmp_path: Path) -> None:
    with pytest.raises(ResidentError, match=r"^node-absent$"):
        read_token(tmp_path / "none")


def test_nothing_but_a_known_question_is_asked(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        ask_resident(f"unix:{tmp_path / 's'}", "x", "forget", b"", seconds=0.1)
