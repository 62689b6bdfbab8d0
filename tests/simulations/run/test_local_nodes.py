"""A population of one-user nodes as one node: the same sum, whoever drops out."""

import numpy as np

from feddp.client.assembly import build_node
from feddp.client.node import Node
from feddp.common.assembly import load_model, load_users
from feddp.common.config.run_config import RunConfig
from feddp.common.data.users import Users, UsersView
from feddp.common.model.layout import AdapterLayout
from feddp.common.privacy.mechanism.sampling import Draw
from feddp.common.privacy.mechanism.summation import UpdateSum
from feddp.common.wire.messages import TrainRequest
from feddp.simulations.run.local_nodes import LocalNodes

CONFIG = RunConfig()


def make_node(users: Users) -> tuple[Node, AdapterLayout]:
    base, layout = load_model(CONFIG)
    return build_node(CONFIG, base, layout, users, UsersView(users, np.arange(0))), layout


def request(layout: AdapterLayout) -> TrainRequest:
    return TrainRequest(1, layout.start, layout.sha256, Draw(0.9), 0.5, 1 << 20, 0, 0, 5)


def test_a_population_replies_the_sum_of_its_one_user_nodes() -> None:
    users, _ = load_users(CONFIG)
    population, layout = make_node(UsersView(users, np.arange(6)))
    devices = [make_node(UsersView(users, np.arange(i, i + 1)))[0] for i in range(6)]
    for dropout in (0.0, 0.5):
        (whole,) = LocalNodes([population], dropout).train(request(layout))
        total = UpdateSum.zeros(layout.dimension)
        for reply in LocalNodes(devices, dropout).train(request(layout)):
            total.merge(reply.total)
        assert total.total.any()
        assert total == whole.total


def test_the_dropout_is_the_share_of_drawn_users_who_do_not_answer() -> None:
    users, _ = load_users(CONFIG)
    node, layout = make_node(UsersView(users, np.arange(2000)))
    asked = request(layout)
    gone = [node._drops_out(user, asked, 0.25) for user in range(2000)]
    assert 0.2 < np.mean(gone) < 0.3
