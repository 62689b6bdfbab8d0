"""Discrete Gaussian noise, sampled exactly, from a cryptographic stream."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from feddp.common.errors import FeddpError
from feddp.common.privacy.mechanism.summation import UpdateSum

KEY_BYTES = 32
MAX_SCALE = 1 << 26  # of independent noise: enough for every grid, see accounting
MAX_SAMPLER_SCALE = 1 << 50  # correlated noise needs more, see correlated
# Candidates of 32 scales and more beyond the mode of their proposal are cut, so that all products
# stay in int64; the proposal stops a little further out.
_MAX_WHOLE = 32
_MAX_QUOTIENT = 40
# Draws of one stream: a public constant, so that the draws do not depend on the number of threads.
# Bounds the memory of a thread and stays in its cache.
BLOCK = 1 << 16


class BitStream:
    """Uniform integers from ChaCha20 under a key that is used for one release alone.

    **Guarantee:** a stream and all that are split from it are ChaCha20 under one key and nonces of
    their own, so they are as independent as the words of a single stream are.
    """

    def __init__(self, key: bytes):
        if len(key) != KEY_BYTES:
            raise ValueError(f"a noise key has {KEY_BYTES} bytes, not {len(key)}")
        self._key, self._num_split = key, 0
        self._stream = _chacha20(key, nonce=0)

    def split(self, count: int) -> list["BitStream"]:
        """Further streams, none of which was ever given out before.

        Raises:
          ValueError: this stream was split from another, whose nonces it would use again.
        """
        if not self._key:
            raise ValueError("a stream that was split from another cannot be split again")
        nonces = range(self._num_split + 1, self._num_split + 1 + count)
        self._num_split += count
        parts = []
        for nonce in nonces:
            part = BitStream(self._key)
            part._key, part._stream = b"", _chacha20(self._key, nonce)
            parts.append(part)
        return parts

    def below(self, bound: int, size: int) -> NDArray[np.int64]:
        """`size` exactly uniform integers in [0, bound), 2 <= bound <= 2^62; int64.

        Raises:
          ValueError: the bound is outside, where int64 would no longer be exact.
        """
        if not 2 <= bound <= 1 << 62:
            raise ValueError(f"bound {bound}: must be in [2, 2^62]")
        num_bits = (bound - 1).bit_length()
        out = np.empty(size, dtype=np.int64)
        filled = 0
        while filled < size:
            wanted = int((size - filled) * 1.05 * (1 << num_bits) / bound) + 16
            words = np.frombuffer(self._stream.update(bytes(8 * wanted)), dtype="<u8")
            candidates = (words >> np.uint64(64 - num_bits)).astype(np.int64)
            accepted = candidates[candidates < bound][: size - filled]
            out[filled : filled + len(accepted)] = accepted
            filled += len(accepted)
        return out


def discrete_gaussian(
    bits: BitStream, scale: int, size: int, *, num_threads: int | None = None
) -> NDArray[np.int64]:
    """Draws from the discrete Gaussian N_Z(0, scale^2), exactly.

    **Guarantee:** every probability used is a ratio of integers below 2^62, so the distribution is
    exact up to a cut beyond 30 standard deviations (mass below 1e-190); no floating-point number
    decides anything.

    Every `BLOCK` draws have a stream of their own, and threads take blocks: the draws are those of
    one thread, whatever their number is.

    Args:
      bits: a fresh stream.
      scale: the standard deviation in grid steps, 2 <= scale <= 2^50.
      size: how many.
      num_threads: that draw; None is one for each core of this process.

    Returns:
      int64, shape (size,).

    Reference: Canonne, Kamath & Steinke 2020, algorithm 3, with proposal scale t = scale.
    """
    if not 2 <= scale <= MAX_SAMPLER_SCALE:
        raise ValueError(f"noise scale {scale}: must be in [2, 2^50]")
    out = np.empty(size, dtype=np.int64)
    parts = [out[start : start + BLOCK] for start in range(0, size, BLOCK)]
    streams = [bits, *bits.split(max(0, len(parts) - 1))]
    fill = partial(_fill, scale=scale)
    threads = min(len(parts), num_threads or _num_cores())
    if threads <= 1:
        list(map(fill, parts, streams))
    else:
        with ThreadPoolExecutor(threads) as executor:  # numpy releases the interpreter's lock
            list(executor.map(fill, parts, streams))
    return out


def fresh_key(context: bytes, total: UpdateSum) -> bytes:
    """A key for one release, from fresh entropy hedged with the ledger's head and the sum.

    **Guarantee:** uniform when the operating system's entropy is; and two clones of one machine
    that draw equal entropy still differ where their contexts or sums do. The digest of the sum and
    the key are sensitive and stay in memory.

    Args:
      context: public and unique to the release: ledger head, round, attempt.
      total: the sum that the noise is for.
    """
    info = b"feddp-noise" + hashlib.sha256(total.total.tobytes()).digest()
    derive = HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=context, info=info)
    return derive.derive(os.urandom(KEY_BYTES))


def seeded_key(seed: int, round: int, node: str = "") -> bytes:
    """A key that depends on (seed, round, node) alone, so that runs repeat. Not private.

    Args:
      seed: of the run.
      round: from 1.
      node: name of the node, where each adds noise of its own; the server app has none.
    """
    place = f"/{node}" if node else ""
    return hashlib.sha256(f"feddp-seeded-noise/{seed}/{round}{place}".encode()).digest()


def check_entropy() -> None:
    """Refuses to start on a machine whose entropy source repeats itself.

    Raises:
      FeddpError: two draws are equal.
    """
    if os.urandom(KEY_BYTES) == os.urandom(KEY_BYTES):
        raise FeddpError(
            "The operating system's entropy source returned the same bytes twice. Noise would "
            "repeat; nothing was started."
        )


def _chacha20(key: bytes, nonce: int) -> CipherContext:
    """The stream of a key and nonce; its first 8 bytes count the blocks of ChaCha20."""
    start = bytes(8) + nonce.to_bytes(8, "little")
    return Cipher(algorithms.ChaCha20(key, start), mode=None).encryptor()


def _num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _fill(out: NDArray[np.int64], bits: BitStream, scale: int) -> None:
    """Fills an array with draws."""
    size, filled = len(out), 0
    while filled < size:
        candidates = _discrete_laplace(bits, scale, int((size - filled) * 1.5) + 64)
        accepted = _accept_gaussian(bits, candidates, scale)[: size - filled]
        out[filled : filled + len(accepted)] = accepted
        filled += len(accepted)


def _bernoulli_exp(
    bits: BitStream, numerator: NDArray[np.int64], denominator: int
) -> NDArray[np.bool_]:
    """Exact Bernoulli(exp(-numerator / denominator)), 0 <= numerator <= denominator.

    The number of successes in a row of Bernoulli(gamma / k), k = 1, 2, ..., is even with
    probability exp(-gamma) (von Neumann's trick).
    """
    result = np.zeros(len(numerator), dtype=bool)
    live = np.arange(len(numerator))
    k = 1
    while len(live):
        if denominator * k > 1:
            goes_on = bits.below(denominator * k, len(live)) < numerator[live]
        else:
            goes_on = numerator[live] > 0
        result[live[~goes_on]] = k % 2 == 1
        live = live[goes_on]
        k += 1
    return result


def _discrete_laplace(bits: BitStream, scale: int, size: int) -> NDArray[np.int64]:
    """About `size` exact draws from the discrete Laplace distribution of an integer scale >= 2."""
    remainder = bits.below(scale, int(size * 1.7) + 64)
    remainder = remainder[_bernoulli_exp(bits, remainder, scale)]
    quotient = _count_successes(bits, np.full(len(remainder), _MAX_QUOTIENT, dtype=np.int64))
    magnitude = remainder + scale * quotient
    is_negative = bits.below(2, len(magnitude)) == 1
    signed = np.where(is_negative, -magnitude, magnitude)
    draws: NDArray[np.int64] = signed[~(is_negative & (magnitude == 0))]  # zero has one sign
    return draws[:size]


def _count_successes(bits: BitStream, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Successes in a row of Bernoulli(exp(-1)), at most `wanted` each."""
    count = np.zeros(len(wanted), dtype=np.int64)
    live = np.flatnonzero(wanted != 0)
    while len(live):
        live = live[_bernoulli_exp(bits, np.ones(len(live), dtype=np.int64), 1)]
        count[live] += 1
        live = live[count[live] != wanted[live]]
    return count


def _accept_gaussian(
    bits: BitStream, candidates: NDArray[np.int64], scale: int
) -> NDArray[np.int64]:
    """Keeps a Laplace candidate x with probability exp(-(|x| - scale)^2 / (2 scale^2)).

    With | |x| - scale | = scale w + r the exponent is w^2/2 + w r / scale + (r / scale)^2 / 2: one
    factor for its integers, one for what is left of the second term, one for half an odd w^2, and
    one for the last term. None of them needs the square of a scale.
    """
    whole, rest = np.divmod(np.abs(np.abs(candidates) - scale), scale)
    is_near = whole < _MAX_WHOLE
    candidates, whole, rest = candidates[is_near], whole[is_near], rest[is_near]
    survives = _bernoulli_exp_half_square(bits, rest, scale)
    candidates, whole, rest = candidates[survives], whole[survives], rest[survives]
    carried, rest = np.divmod(whole * rest, scale)
    wanted = whole * whole // 2 + carried
    is_accepted = _count_successes(bits, wanted) == wanted
    for numerator, denominator in ((rest, scale), (whole % 2, 2)):
        live = np.flatnonzero(is_accepted & (numerator > 0))
        is_accepted[live] = _bernoulli_exp(bits, numerator[live], denominator)
    accepted: NDArray[np.int64] = candidates[is_accepted]
    return accepted


def _bernoulli_exp_half_square(
    bits: BitStream, numerator: NDArray[np.int64], denominator: int
) -> NDArray[np.bool_]:
    """Exact Bernoulli(exp(-(numerator / denominator)^2 / 2)), 0 <= numerator < denominator.

    As `_bernoulli_exp`, where Bernoulli(gamma / k) is the conjunction of Bernoulli(1 / 2k) and two
    of Bernoulli(numerator / denominator).
    """
    result = np.zeros(len(numerator), dtype=bool)
    live = np.arange(len(numerator))
    k = 1
    while len(live):
        goes_on = bits.below(2 * k, len(live)) == 0
        for _ in range(2):
            asked = np.flatnonzero(goes_on)
            goes_on[asked] = bits.below(denominator, len(asked)) < numerator[live[asked]]
        result[live[~goes_on]] = k % 2 == 1
        live = live[goes_on]
        k += 1
    return result
