import numpy as np

from client.build import build_node, build_sharded_node
from client.sharding import part_of
from common.build import Part, load_model, load_users
from common.config import from_flat
from common.messages import EvaluateRequest, TrainRequest
from common.privacy.sampling import Draw

CONFIG = from_flat({"nodes.workers": 2, "evaluation.max-users": 3})


def test_shares_are_disjoint_and_make_up_the_part() -> None:
    keys = np.arange(1000)
    for part in (Part(), Part(1, 3)):
        own = keys[keys % part.num_parts == part.index]
        shares = [part_of(part, rank, 4) for rank in range(4)]
        found = [keys[keys % share.num_parts == share.index] for share in shares]
        assert np.array_equal(np.sort(np.concatenate(found)), own)


def test_two_processes_give_the_bytes_of_one() -> None:
    base, layout = load_model(CONFIG)
    node = build_node(CONFIG, base, layout, *load_users(CONFIG))
    sharded = build_sharded_node(CONFIG, Part())
    try:
        for number in (1, 2):
            request = TrainRequest(
                number, layout.start, layout.sha256, Draw(0.002), 0.5, 1 << 20, 0, 0, 4
            )
            expected = node.train(request, dropout=0.2 * (number - 1)).total
            assert expected.total.any()
            found = sharded.train(request, dropout=0.2 * (number - 1)).total
            assert found.total.tobytes() == expected.total.tobytes()
        asked = EvaluateRequest(layout.start, layout.sha256)
        one, two = node.evaluate(asked), sharded.evaluate(asked)
        assert (one.num_targets, one.num_correct) == (two.num_targets, two.num_correct)
        np.testing.assert_allclose(two.loss_sum, one.loss_sum, rtol=1e-6)
    finally:
        sharded.close()
