import pytest
import torch

from client.build import choose_device


def test_auto_is_an_accelerator_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_there, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda is_there=is_there: is_there)
        assert choose_device("auto") == device
        assert choose_device("cuda:1") == "cuda:1"
