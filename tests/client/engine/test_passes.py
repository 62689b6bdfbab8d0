import numpy as np

from feddp.client.engine.passes import PassRow, cut_passes, padded_length
from feddp.common.data.tokens import TokenRow


def row(length: int) -> TokenRow:
    return TokenRow(np.ones(length, dtype=np.int64), np.ones(length, dtype=np.int64))


def lognormal_rows(num_users: int) -> list[TokenRow]:
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(num_users):
        for _ in range(int(np.clip(np.exp(0.7 + rng.normal()), 1, 12))):
            rows.append(row(int(np.clip(np.exp(3.3 + 0.8 * rng.normal()), 8, 128))))
    return rows


def test_nine_of_ten_computed_tokens_of_lognormal_users_are_real() -> None:
    rows = lognormal_rows(2000)
    computed = sum(padded_length(r, None) for r in rows)
    assert sum(len(r.input_ids) for r in rows) / computed > 0.9


def test_passes_hold_every_row_once_at_one_length_within_the_budget() -> None:
    rows = [PassRow(slot, r, 1.0) for slot, r in enumerate(lognormal_rows(200))]
    for num_threads in (1, 2):
        passes = cut_passes(rows, longest=None, pass_tokens=1024, num_threads=num_threads)
        assert sorted(item.slot for part in passes for item in part) == list(range(len(rows)))
        for part in passes:
            lengths = {padded_length(item.row, None) for item in part}
            assert len(lengths) == 1
            assert lengths.pop() * len(part) <= 1024


def test_packed_passes_hold_every_row_once_and_lengths_beside_each_other() -> None:
    rows = [PassRow(slot, r, 1.0) for slot, r in enumerate(lognormal_rows(200))]
    for num_threads, budget in ((1, 1024), (2, 1024), (2, 1 << 20)):
        passes = cut_passes(
            rows, longest=None, pass_tokens=budget, num_threads=num_threads, is_packed=True
        )
        assert sorted(item.slot for part in passes for item in part) == list(range(len(rows)))
        lengths = [[padded_length(item.row, None) for item in part] for part in passes]
        in_order = [length for part in lengths for length in part]
        assert in_order == sorted(in_order, reverse=True)
        assert all(sum(part) <= budget for part in lengths)
    assert len(passes) == 2  # as many as threads, where all rows run at once


def test_one_row_longer_than_the_budget_is_a_pass_of_its_own() -> None:
    rows = [PassRow(0, row(100), 1.0), PassRow(1, row(100), 1.0)]
    passes = cut_passes(rows, longest=None, pass_tokens=64, num_threads=1)
    assert [len(part) for part in passes] == [1, 1]


def test_passes_of_a_classifier_are_full_multiples_but_for_the_last_of_a_length() -> None:
    rows = [PassRow(slot, r, 1.0) for slot, r in enumerate(lognormal_rows(300))]
    passes = cut_passes(rows, longest=None, pass_tokens=1024, num_threads=1, row_multiple=32)
    sizes: dict[int, list[int]] = {}
    for part in passes:
        sizes.setdefault(padded_length(part[0].row, None), []).append(len(part))
    assert sum(map(sum, sizes.values())) == len(rows)
    assert all(size % 32 == 0 for group in sizes.values() for size in group[:-1])
