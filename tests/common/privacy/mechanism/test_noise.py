"""Noise: the exact distribution, two-sided; keys that never repeat; a stream that is ChaCha20."""

import itertools
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from feddp.common.errors import FeddpError
from feddp.common.privacy.mechanism.noise import (
    BLOCK,
    MAX_SAMPLER_SCALE,
    MAX_SCALE,
    BitStream,
    check_entropy,
    discrete_gaussian,
    fresh_key,
    seeded_key,
)
from feddp.common.privacy.mechanism.summation import UpdateSum

P_THRESHOLD = 1e-3
SCALE = 1 << 20
SIZE = 200_000


def stream(number: int) -> BitStream:
    """A stream under a fixed key, so that each test sees the same draws in every run."""
    return BitStream(number.to_bytes(32, "big"))


NOISE = discrete_gaussian(stream(5), SCALE, SIZE)


def masses(scale: float, reach: int) -> np.ndarray:
    """Probabilities of -reach..reach under N_Z(0, scale^2)."""
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * scale**2))
    return weights / weights.sum()


def chi_square_p_value(draws: np.ndarray, scale: float) -> float:
    """Against the exact masses; cells from both tails are pooled to at least 20 expected draws."""
    reach = math.ceil(12 * scale)
    expected = masses(scale, reach) * len(draws)
    observed = np.bincount(np.clip(draws, -reach, reach) + reach, minlength=2 * reach + 1)
    first = int(np.argmax(np.cumsum(expected) >= 20))
    last = len(expected) - 1 - first
    pooled = [
        np.concatenate([[row[: first + 1].sum()], row[first + 1 : last], [row[last:].sum()]])
        for row in (observed, expected)
    ]
    return float(stats.chisquare(pooled[0], pooled[1]).pvalue)


def scale_p_value(draws: np.ndarray, scale: float) -> float:
    """Two-sided test of the standard deviation; the sum of squares is chi-square at this scale."""
    statistic = float(np.sum((draws / scale) ** 2))
    tail = stats.chi2.sf(statistic, len(draws)), stats.chi2.cdf(statistic, len(draws))
    return 2 * float(min(tail))


@pytest.mark.parametrize("scale", [2, 3, 17])
def test_small_scales_have_the_exact_masses(scale):
    draws = discrete_gaussian(stream(10 + scale), scale, SIZE)
    assert chi_square_p_value(draws, scale) > P_THRESHOLD


# A scale that is 2 % off moves the statistic of 200,000 draws by 2 * 200,000 * 0.02^2 = 160 above
# its mean of less than 150 degrees: power > 0.999.
@pytest.mark.parametrize("scale", [2, 3, 17])
@pytest.mark.parametrize("factor", [2 / 3, 0.98, 1.02, 3 / 2])
def test_wrong_small_scales_are_rejected(scale, factor):
    draws = discrete_gaussian(stream(10 + scale), scale, SIZE)
    assert chi_square_p_value(draws, factor * scale) < P_THRESHOLD


def test_large_scale_is_normal_in_shape():
    assert stats.kstest(NOISE / SCALE, "norm").pvalue > P_THRESHOLD


@pytest.mark.parametrize("factor", [2 / 3, 3 / 2])
def test_wrong_large_scale_is_rejected_in_shape(factor):
    assert stats.kstest(NOISE / (factor * SCALE), "norm").pvalue < P_THRESHOLD


def test_large_scale_has_the_moments_of_a_normal():
    unit = NOISE / SCALE
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        error = (np.mean(unit**power) - moment) / math.sqrt(variance / SIZE)
        assert abs(error) < stats.norm.isf(P_THRESHOLD / 2), power


# The statistic has 200,000 degrees: a deficit of a third is 150 of its standard deviations.
def test_true_scale_is_accepted():
    assert scale_p_value(NOISE, SCALE) > P_THRESHOLD


@pytest.mark.parametrize("factor", [2 / 3, 0.98, 1.02, 3 / 2])
def test_wrong_scale_is_rejected(factor):
    assert scale_p_value(NOISE, factor * SCALE) < P_THRESHOLD


@pytest.mark.parametrize("scale", [2, 3, 1 << 12, MAX_SCALE, 3 << 38, MAX_SAMPLER_SCALE])
def test_every_allowed_scale_has_its_standard_deviation(scale):
    # Discreteness moves the variance of scale 2 by less than 1e-30 of it.
    assert scale_p_value(discrete_gaussian(stream(scale), scale, 50_000), scale) > P_THRESHOLD


def many_draws(scale: int, *, first_key: int) -> np.ndarray:
    """1e7 draws."""
    blocks = range(first_key, first_key + 10)
    return np.concatenate([discrete_gaussian(stream(i), scale, 1_000_000) for i in blocks])


# The relative standard error of the scale of 1e7 draws is 2.2e-4: with alpha = 1e-9, a deficit of
# 0.24 % is missed once in 1e6.
@pytest.mark.slow
def test_true_scale_is_accepted_on_ten_million_draws():
    draws = many_draws(SCALE, first_key=100)
    assert scale_p_value(draws, SCALE) > 1e-9
    assert stats.kstest(draws / SCALE, "norm").pvalue > 1e-6
    assert stats.chisquare(np.bincount(draws & 15, minlength=16)).pvalue > 1e-6
    for lag in (1, 2, 1000):
        assert stats.pearsonr(draws[:-lag] / SCALE, draws[lag:] / SCALE).pvalue > 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.99, 0.9975, 1.0025])
def test_a_quarter_percent_of_scale_is_detected_on_ten_million_draws(factor):
    draws = many_draws(round(factor * SCALE), first_key=200)
    assert scale_p_value(draws, SCALE) < 1e-9


# Candidates beyond twice the scale take the branches for whole and odd exponents.
@pytest.mark.parametrize("scale", [1 << 20, 3 << 38])
def test_tails_have_their_masses(scale):
    draws = np.abs(discrete_gaussian(stream(60), scale, 1_000_000)) / scale
    edges = np.array([0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 50])
    expected = np.diff(1 - 2 * stats.norm.sf(edges)) * len(draws)
    assert stats.chisquare(np.histogram(draws, edges)[0], expected).pvalue > P_THRESHOLD


def test_low_bits_are_uniform_at_a_large_scale():
    # Float-based samplers show here first: their low bits follow the rounding.
    assert stats.chisquare(np.bincount(NOISE & 255, minlength=256)).pvalue > P_THRESHOLD


@pytest.mark.parametrize("lag", [1, 2, 1000])
def test_coordinates_are_independent(lag):
    left, right = NOISE[:-lag] / SCALE, NOISE[lag:] / SCALE
    for one, other in ((left, right), (np.abs(left), np.abs(right))):
        assert stats.pearsonr(one, other).pvalue > P_THRESHOLD


def test_rounds_are_independent():
    first = discrete_gaussian(BitStream(seeded_key(5, 1)), SCALE, SIZE)
    second = discrete_gaussian(BitStream(seeded_key(5, 2)), SCALE, SIZE)
    assert stats.pearsonr(first, second).pvalue > P_THRESHOLD
    assert scale_p_value(first - second, math.sqrt(2) * SCALE) > P_THRESHOLD
    assert np.sum(first == second) < 10


def test_a_reused_key_would_be_seen():
    assert stats.pearsonr(NOISE, discrete_gaussian(stream(5), SCALE, SIZE)).pvalue < P_THRESHOLD


@pytest.mark.parametrize("size", [1000, 2 * BLOCK])
def test_a_stream_goes_on_and_does_not_repeat_itself(size):
    bits = stream(4)
    first, second = discrete_gaussian(bits, SCALE, size), discrete_gaussian(bits, SCALE, size)
    for start in range(0, size, BLOCK):
        assert np.sum(first[start:][:BLOCK] == second[start:][:BLOCK]) < 5


@pytest.mark.parametrize("num_threads", [2, 3, None])
def test_draws_do_not_depend_on_the_number_of_threads(num_threads):
    size = 3 * BLOCK + 17
    alone = discrete_gaussian(stream(3), SCALE, size, num_threads=1)
    shared = discrete_gaussian(stream(3), SCALE, size, num_threads=num_threads)
    np.testing.assert_array_equal(alone, shared)
    np.testing.assert_array_equal(alone[:BLOCK], discrete_gaussian(stream(3), SCALE, BLOCK))


def test_a_block_that_fails_fails_the_draw(monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr("feddp.common.privacy.mechanism.noise._accept_gaussian", fail)
    with pytest.raises(MemoryError):
        discrete_gaussian(stream(3), SCALE, 2 * BLOCK, num_threads=2)


def test_blocks_are_independent():
    blocks = discrete_gaussian(stream(9), SCALE, 4 * BLOCK).reshape(4, BLOCK) / SCALE
    for one, other in itertools.combinations(blocks, 2):
        assert stats.pearsonr(one, other).pvalue > P_THRESHOLD / 6
        assert stats.pearsonr(np.abs(one), np.abs(other)).pvalue > P_THRESHOLD / 6
        assert np.sum(one == other) < 10
        assert scale_p_value((one - other) * SCALE, math.sqrt(2) * SCALE) > P_THRESHOLD / 6


def test_split_streams_are_chacha20_under_nonces_of_their_own():
    # RFC 8439, appendix A.1, test vector 5: key and counter zero, last byte of the nonce two.
    golden = np.frombuffer(bytes.fromhex("c2c64d378cd536374ae204b9ef933fcd"), dtype="<u8")
    last = BitStream(bytes(32))
    last._num_split = (2 << 56) - 1
    assert last.split(1)[0].below(1 << 62, 2).tolist() == (golden >> np.uint64(2)).tolist()
    bits = BitStream(bytes(32))
    streams = [bits, *bits.split(3), *bits.split(2)]
    assert len({int(each.below(1 << 62, 1)[0]) for each in streams}) == 6


def test_a_split_stream_is_not_split_again():
    with pytest.raises(ValueError, match="split again"):
        stream(1).split(1)[0].split(1)


@pytest.mark.parametrize("size", [0, 1, 2, 1000, BLOCK, BLOCK + 1])
def test_as_many_draws_as_asked_for(size):
    draws = discrete_gaussian(stream(2), 1 << 20, size)
    assert draws.shape == (size,)
    assert draws.dtype == np.int64


@pytest.mark.parametrize("scale", [-1, 0, 1, MAX_SAMPLER_SCALE + 1])
def test_scale_outside_the_proof_is_refused(scale):
    with pytest.raises(ValueError, match="noise scale"):
        discrete_gaussian(stream(1), scale, 10)


@pytest.mark.parametrize("bound", [2, 3, 5, 8, 10])
def test_bounded_integers_are_uniform(bound):
    draws = stream(bound).below(bound, 100_000)
    assert stats.chisquare(np.bincount(draws, minlength=bound)).pvalue > P_THRESHOLD


@pytest.mark.parametrize("bound", [(1 << 61) + 1, 1 << 62, 3 << 60])
def test_wide_integers_are_uniform(bound):
    draws = stream(7).below(bound, 100_000)
    assert draws.min() >= 0
    assert draws.max() < bound
    assert stats.kstest(draws / bound, "uniform").pvalue > P_THRESHOLD


@pytest.mark.parametrize("bound", [0, 1, (1 << 62) + 1, 1 << 64])
def test_bound_outside_exact_integers_is_refused(bound):
    with pytest.raises(ValueError, match="bound"):
        stream(1).below(bound, 10)


def test_bits_are_those_of_chacha20():
    # RFC 8439, appendix A.1, test vector 1: key, counter and nonce zero; first 16 bytes.
    golden = bytes.fromhex("76b8e0ada0f13d90405d6ae55386bd28")
    words = np.frombuffer(golden, dtype="<u8") >> np.uint64(2)
    assert BitStream(bytes(32)).below(1 << 62, 2).tolist() == words.tolist()


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_key_of_another_length_is_refused(size):
    with pytest.raises(ValueError, match="32 bytes"):
        BitStream(bytes(size))


def sum_of(*values: int) -> UpdateSum:
    return UpdateSum(np.array(values, dtype=np.int64))


def test_fresh_keys_differ_for_the_same_context_and_sum():
    keys = {fresh_key(b"head/1/1", sum_of(1, 2)) for _ in range(100)}
    assert len(keys) == 100
    assert {len(key) for key in keys} == {32}


def test_keys_differ_with_context_and_sum_even_under_equal_entropy(monkeypatch):
    monkeypatch.setattr(os, "urandom", lambda size: b"\x2a" * size)
    keys = [
        fresh_key(b"head/1/1", sum_of(1, 2)),
        fresh_key(b"head/1/2", sum_of(1, 2)),
        fresh_key(b"head/2/1", sum_of(1, 2)),
        fresh_key(b"other/1/1", sum_of(1, 2)),
        fresh_key(b"head/1/1", sum_of(1, 3)),
        fresh_key(b"head/1/1", sum_of(2, 1)),
        fresh_key(b"head/1/1", sum_of(1, 2, 0)),
    ]
    assert len(set(keys)) == len(keys)
    assert fresh_key(b"head/1/1", sum_of(1, 2)) == keys[0]


def test_key_depends_on_entropy_and_cannot_be_made_from_public_things(monkeypatch):
    monkeypatch.setattr(os, "urandom", lambda size: b"\x2a" * size)
    one = fresh_key(b"head/1/1", sum_of(1, 2))
    monkeypatch.setattr(os, "urandom", lambda size: b"\x2b" * size)
    assert fresh_key(b"head/1/1", sum_of(1, 2)) != one


def test_seeded_keys_repeat_and_depend_on_seed_and_round():
    assert seeded_key(1, 1) == seeded_key(1, 1)
    assert len({seeded_key(1, 1), seeded_key(1, 2), seeded_key(2, 1), seeded_key(1, 11)}) == 4
    assert len({seeded_key(11, 1), seeded_key(1, 11)}) == 2


FORK = """
import json, os, sys
import numpy as np
from feddp.common.privacy.mechanism.noise import BitStream, discrete_gaussian, fresh_key
from feddp.common.privacy.mechanism.summation import UpdateSum

def draws():
    key = fresh_key(b"head/1/1", UpdateSum.zeros(4))
    return discrete_gaussian(BitStream(key), 1 << 20, 50).tolist()

draws()  # whatever state a process keeps exists before the fork
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    os.write(writer, json.dumps(draws()).encode())
    os._exit(0)
os.waitpid(child, 0)
print(json.dumps([draws(), json.loads(os.read(reader, 1 << 16))]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
def test_draws_differ_across_a_fork():
    done = subprocess.run(
        [sys.executable, "-c", FORK], capture_output=True, text=True, check=True, timeout=60
    )
    parent, child = json.loads(done.stdout)
    assert len(parent) == len(child) == 50
    assert sum(one == other for one, other in zip(parent, child, strict=True)) < 3


def test_working_entropy_source_is_accepted():
    check_entropy()


def test_constant_entropy_source_is_refused(monkeypatch):
    monkeypatch.setattr(os, "urandom", bytes)
    with pytest.raises(FeddpError, match="same bytes twice"):
        check_entropy()
