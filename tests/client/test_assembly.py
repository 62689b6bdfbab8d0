import dataclasses
from pathlib import Path

import pytest
import torch

from feddp.client.assembly import choose_device, holds_too_many, local_method
from feddp.client.engine import methods
from feddp.client.engine.protocol import Epochs
from feddp.common.assembly import Part, load_users
from feddp.common.config.run_config import from_flat
from feddp.common.config.sections import LocalSection


def test_auto_is_an_accelerator_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_there, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda is_there=is_there: is_there)
        assert choose_device("auto") == device
        assert choose_device("cuda:1") == "cuda:1"


def test_a_node_holds_too_many_users_from_one_more_than_it_is_registered_for() -> None:
    part = Part(0, 20)
    num_users = load_users(from_flat({}), part)[0].num_users
    for most, is_too_many in ((num_users - 1, True), (num_users, False), (num_users + 1, False)):
        assert holds_too_many(from_flat({"nodes.users-per-node": most}), part) == is_too_many
    assert not holds_too_many(from_flat({}), part)


def test_every_local_optimizer_is_a_file_of_local_methods_and_every_file_is_one() -> None:
    (choices,) = (
        field.metadata["choices"]
        for field in dataclasses.fields(LocalSection)
        if field.name == "optimizer"
    )
    files = {path.stem for path in Path(methods.__path__[0]).glob("*.py")} - {"__init__"}
    assert files == set(choices)
    for name in choices:
        local = LocalSection(optimizer=name, learning_rate=0.5, epochs=3, batch_size=2, steps=7)
        method = local_method(local)
        assert (method.learning_rate, method.epochs) == (0.5, Epochs(3, 2, 7))
