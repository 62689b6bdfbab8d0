"""Bugs at the door of the server: what a reply may be, and what is added."""

from mutants.mutant import Mutant

AGGREGATION = "server/aggregation.py"
MESSAGES = "common/wire/messages.py"
TEST_AGGREGATION = "tests/server/test_aggregation.py::"
REFUSED = "tests/common/wire/test_messages.py::test_replies_outside_the_contract_are_refused"

WIRE = (
    Mutant(
        "bound on a node's sum dropped",
        AGGREGATION,
        {" or not is_within(reply.total.total, limit)": ""},
        (TEST_AGGREGATION + "test_invalid_reply_contributes_zero_and_others_count",),
    ),
    Mutant(
        "a node may send what all users together could",
        AGGREGATION,
        {"limit = min(num_units, max_units_per_node) *": "limit = num_units *"},
        (TEST_AGGREGATION + "test_a_node_of_one_unit_is_clipped_again",),
    ),
    Mutant(
        "no bound on the number of replies",
        AGGREGATION,
        {"            room -= 1\n": ""},
        (TEST_AGGREGATION + "test_replies_that_are_too_large_together_never_overflow",),
    ),
    Mutant(
        "a reply counts only where the total stays small",
        AGGREGATION,
        {"        if room > 0:": ("        if is_within(total.total + reply.total.total, limit):")},
        (
            "tests/properties/test_neighbours.py::"
            "test_a_hostile_node_does_not_make_an_honest_user_count_for_more",
        ),
    ),
    Mutant(
        "reply of another round accepted",
        AGGREGATION,
        {
            "(reply.round, reply.layout_sha256) == (request.round, request.layout_sha256)": (
                "reply.layout_sha256 == request.layout_sha256"
            )
        },
        (TEST_AGGREGATION + "test_invalid_reply_contributes_zero_and_others_count",),
    ),
    Mutant(
        "layout of a reply unchecked",
        AGGREGATION,
        {
            "(reply.round, reply.layout_sha256) == (request.round, request.layout_sha256)": (
                "reply.round == request.round"
            )
        },
        (TEST_AGGREGATION + "test_invalid_reply_contributes_zero_and_others_count",),
    ),
    Mutant(
        "shape unchecked",
        MESSAGES,
        {" or tuple(array.shape) != (dimension,)": ""},
        (REFUSED,),
    ),
    Mutant(
        "number of bytes unchecked",
        MESSAGES,
        {"len(array.data) != dimension * np.dtype(dtype).itemsize": "len(array.data) % 8 != 0"},
        (REFUSED,),
    ),
    Mutant(
        "version unchecked",
        MESSAGES,
        {'if config.get("version") != VERSION:': 'if "version" not in config:'},
        (REFUSED,),
    ),
    Mutant(
        "a reply may carry more records",
        MESSAGES,
        {"if set(content) != names or config is None:": "if config is None:"},
        (REFUSED,),
    ),
    Mutant(
        "layout of a request unchecked at the node",
        "client/node.py",
        {"if layout_sha256 != self._layout_sha256:": "if not layout_sha256:"},
        ("tests/client/test_node.py::test_a_request_for_another_layout_is_refused",),
    ),
)
