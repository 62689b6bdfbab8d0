"""Bugs on the node: who is drawn, how an update is clipped, what one user does to another."""

from mutants.mutant import Mutant

CLIPPING = "common/privacy/mechanism/clipping.py"
SAMPLING = "common/privacy/mechanism/sampling.py"
SUMMATION = "common/privacy/mechanism/summation.py"
COHORT = "client/engine/cohort.py"
NODE = "client/node.py"
TEST_BITS = "tests/client/engine/test_bits.py::test_a_user_has_the_same_bits_alone_and_in_company"
TEST_PACKING = "tests/client/engine/test_packing.py::"
TEST_CLIPPING = "tests/common/privacy/mechanism/test_clipping.py::"
TEST_SAMPLING = "tests/common/privacy/mechanism/test_sampling.py::"
TEST_COHORT = "tests/client/engine/test_cohort.py::"
ISOLATION = "tests/client/engine/test_isolation.py::"

CLIPPED = """        return clip_to_grid(
            encoded, clipping_norm=request.clipping_norm, grid_steps=request.grid_steps
        )
"""

CONTRIBUTION = (
    Mutant(
        "user clip missing",
        NODE,
        {
            CLIPPED: (
                "        steps = encoded.astype(np.float64) / request.clipping_norm\n"
                "        return np.trunc(steps * request.grid_steps).astype(np.int64)\n"
            )
        },
        (ISOLATION + "test_every_kind_of_user_moves_the_sum_by_at_most_k",),
    ),
    Mutant(
        "clipped as it is, then encoded",
        NODE,
        {
            "clipped = _clip(self.encoding.encode(update), request)  # encoded, then clipped": (
                "clipped = _clip(update, request).astype(np.float32)\n"
                "                clipped = self.encoding.encode(clipped).astype(np.int64)"
            )
        },
        ("tests/client/test_node.py::test_the_vector_that_is_clipped_is_the_encoded_one",),
    ),
    Mutant(
        "clip per tensor, with C each",
        NODE,
        {
            CLIPPED: (
                "        return np.concatenate([\n"
                "            clip_to_grid(\n"
                "                part,\n"
                "                clipping_norm=request.clipping_norm,\n"
                "                grid_steps=request.grid_steps,\n"
                "            )\n"
                "            for part in np.array_split(encoded, 2)\n"
                "        ])\n"
            )
        },
        (ISOLATION + "test_every_kind_of_user_moves_the_sum_by_at_most_k",),
    ),
    Mutant(
        "sum weighted by the size of the update",
        NODE,
        {CLIPPED: CLIPPED.rstrip("\n") + " * (1 + int(np.linalg.norm(encoded)))\n"},
        (ISOLATION + "test_every_kind_of_user_moves_the_sum_by_at_most_k",),
    ),
    Mutant(
        "norm not checked in integers",
        CLIPPING,
        {
            "            if is_within(integers, grid_steps):\n                return integers\n": (
                "            return integers\n"
            )
        },
        (
            TEST_CLIPPING
            + "test_update_whose_float_norm_is_too_small_by_rounding_still_ends_within",
        ),
    ),
    Mutant(
        "rounded to nearest instead of toward zero",
        CLIPPING,
        {"np.trunc(point, ": "np.rint(point, "},
        (TEST_CLIPPING + "test_entries_are_truncated_and_not_rounded",),
        is_quick=True,
    ),
    Mutant(
        "NaN passes",
        CLIPPING,
        {"return _clip(update.astype(np.float64), ": "return _clip(np.nan_to_num(update), "},
        (TEST_CLIPPING + "test_non_finite_update_contributes_nothing",),
        is_quick=True,
    ),
    Mutant(
        "norm in float32",
        CLIPPING,
        {"np.sum(np.square(values))": "np.sum(np.square(values.astype(np.float32)))"},
        (TEST_CLIPPING + "test_largest_float32_entries_are_clipped_and_not_dropped",),
    ),
    Mutant(
        "squares overflow",
        CLIPPING,
        {"_CHUNK = 1 << 14": "_CHUNK = 1 << 24"},
        (TEST_CLIPPING + "test_sum_of_squares_does_not_overflow_on_long_vectors",),
    ),
    Mutant(
        "squares rounded in float64",
        CLIPPING,
        {
            "if (squares := float(np.square(wide, out=wide).sum())) < 1 << 52": (
                "if math.isfinite(squares := float(np.square(wide, out=wide).sum()))"
            )
        },
        (TEST_CLIPPING + "test_is_within_agrees_with_python_integers_at_the_boundary",),
    ),
    Mutant(
        "limit of the norm off by one",
        CLIPPING,
        {"<= limit * limit": "<= limit * (limit + 1)"},
        (TEST_CLIPPING + "test_is_within_agrees_with_python_integers_at_the_boundary",),
    ),
    Mutant(
        "clip bit outside the norm",
        CLIPPING,
        {"steps = math.isqrt(grid_steps**2 - bit_steps**2)": "steps = grid_steps"},
        (
            "tests/common/privacy/mechanism/test_gaussian.py::"
            "test_update_and_clip_bit_share_the_norm_of_one_unit",
        ),
    ),
    Mutant(
        "sum in float32",
        SUMMATION,
        {"self._total += point": ("self._total += point.astype(np.float32).astype(np.int64)")},
        ("tests/properties/test_neighbours.py::test_one_user_moves_the_total_by_at_most_k",),
    ),
    Mutant(
        "update sum may be pickled",
        SUMMATION,
        {
            "    def __reduce__(self) -> NoReturn:\n"
            '        raise TypeError("an update sum is sensitive and is neither serialised nor '
            'copied")\n': ""
        },
        ("tests/common/privacy/mechanism/test_summation.py::test_pickling_is_refused",),
    ),
    Mutant(
        "q rounded up",
        SAMPLING,
        {
            "threshold = int(probability * _COIN_RANGE)": "threshold = 1 + int(probability * _COIN_RANGE)"
        },
        (TEST_SAMPLING + "test_threshold_is_the_probability_rounded_down",),
    ),
    Mutant(
        "one coin for all users",
        SAMPLING,
        {"os.urandom(8 * len(keys))": "os.urandom(8) * len(keys)"},
        (
            "tests/properties/test_sampling_power.py::"
            "test_fresh_coins_are_independent_between_users_and_between_rounds",
        ),
    ),
    Mutant(
        "the coins of every round are the same",
        SAMPLING,
        {'_mix(b"coin", seed, round, int(key))': '_mix(b"coin", seed, 0, int(key))'},
        (TEST_SAMPLING + "test_rounds_are_drawn_independently_of_each_other",),
    ),
    Mutant(
        "a cohort of fixed size where Poisson is accounted",
        SAMPLING,
        {
            "return np.flatnonzero(coins(keys) < np.uint64(threshold))": (
                "return draw_fixed_size(keys, round(probability * len(keys)), coins)"
            )
        },
        (TEST_SAMPLING + "test_cohort_size_varies_as_a_binomial_does",),
    ),
    Mutant(
        "coins seeded in a private run",
        NODE,
        {
            "coins = fresh_coins if request.seed is None else "
            "seeded_coins(request.seed, request.round)": (
                "coins = seeded_coins(request.seed or 0, request.round)"
            )
        },
        (ISOLATION + "test_without_a_seed_the_same_round_draws_other_users_each_time",),
    ),
    Mutant(
        "one user's failure drops the others",
        COHORT,
        {
            "                residents[item.slot].is_failed = True": (
                "                for user in residents.values():\n"
                "                    user.is_failed = True"
            )
        },
        (TEST_COHORT + "test_one_users_fault_zeroes_that_user_alone",),
    ),
    Mutant(
        "a slot is not cleared for the next user",
        "client/engine/local_state.py",
        {"            tensor.zero_()\n": "            pass\n"},
        (
            "tests/client/engine/test_local_state.py::"
            "test_who_begins_finds_zeros_and_writes_into_the_stacks",
        ),
    ),
    Mutant(
        "loss averaged over the users of a pass",
        "client/engine/forward.py",
        {"self._loss(batch, weights), live": "self._loss(batch, weights) / len(part), live"},
        (TEST_COHORT + "test_a_users_point_has_the_same_bits_whoever_shares_its_passes",),
    ),
    Mutant(
        "products with a vector",
        "client/engine/stacked.py",
        {"MIN_ROWS, MIN_RANK = 8, 2": "MIN_ROWS, MIN_RANK = 8, 1"},
        (TEST_BITS,),
    ),
    Mutant(
        "a mask where another row has padding",
        "client/engine/forward.py",
        {"mask = None if self._needs_no_mask else batch.mask[part]": "mask = batch.mask[part]"},
        (TEST_BITS,),
    ),
    Mutant(
        "packed passes of a model that mixes tokens",
        "client/engine/forward.py",
        {"and torch.equal(self._trial(other_first, second)[cut:], together[cut:])": ""},
        (TEST_PACKING + "test_a_model_that_mixes_the_end_of_a_row_into_the_next_is_not_packed",),
    ),
    Mutant(
        "evaluation users inside training",
        "common/assembly.py",
        {"training = UsersView(everyone, np.flatnonzero(~is_held_out))": "training = everyone"},
        ("tests/common/test_assembly.py::test_demo_users_are_told_apart_by_the_hash_of_their_ids",),
    ),
)
