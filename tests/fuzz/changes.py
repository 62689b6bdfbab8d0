"""Random changes of valid inputs: of bytes, and of trees of JSON-like values."""

import math
from random import Random
from typing import Any

SCALARS: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 255, 1 << 31, 1 << 53, 1 << 63, 1 << 64, -(1 << 63), 10**400,
    0.0, -0.0, 0.5, 1.5, 1e-320, 1e308, -1e308, math.nan, math.inf, -math.inf,
    "", " ", "auto", "demo", "1", "0.5", "nan", "1e400", "\x00", "\ud800", "☃", "ünï", "a" * 5000,
    "../../etc", '"', "\n", "{}", "[", "feddp-ledger-1",
)  # fmt: skip
TOKENS = (
    b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xf0\x9f\x98", b"\n", b"\r\n", b",", b'"', b'""', b"'",
    b"\\", b"\\u0000", b"\\ud800", b"{", b"}", b"[", b"]", b"[" * 5000, b":", b"=", b"#", b"null",
    b"true", b"NaN", b"Infinity", b"-1", b"1e999", b"0x10", b"9" * 40, b"1979-05-27", b"user_id",
    b"text", b"__proto__", b"\x00" * 64, b"A" * 300,
)  # fmt: skip


def change_bytes(rng: Random, content: bytes) -> bytes:
    """One to six small changes: flips, cuts, repeats, insertions and tokens of many formats."""
    out = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        start = rng.randint(0, len(out))
        end = min(len(out), start + rng.choice((1, 1, 2, 8, 64)))
        match rng.randrange(7):
            case 0 if out:
                out[min(start, len(out) - 1)] ^= 1 << rng.randrange(8)
            case 1:
                del out[start:end]
            case 2:
                out[start:start] = out[start:end] * rng.choice((1, 2, 20))
            case 3:
                out[start:end] = rng.randbytes(end - start)
            case 4:
                out[start:start] = rng.choice(TOKENS)
            case 5:
                out[start:end] = rng.choice(TOKENS)
            case _ if rng.random() < 0.2:
                del out[start:]
    return bytes(out)


def change_tree(rng: Random, tree: Any) -> Any:
    """One to four changes of a tree of dicts, lists and scalars; the given tree stays as it is."""
    for _ in range(rng.randint(1, 4)):
        tree = _change_once(rng, tree, depth=0)
    return tree


def odd_value(rng: Random) -> Any:
    """A scalar at an edge, or a small container of them."""
    if rng.random() < 0.85:
        return rng.choice(SCALARS)
    if rng.random() < 0.5:
        return [rng.choice(SCALARS) for _ in range(rng.randrange(3))]
    return {str(rng.choice(SCALARS)): rng.choice(SCALARS) for _ in range(rng.randrange(3))}


def _change_once(rng: Random, tree: Any, *, depth: int) -> Any:
    is_parent = isinstance(tree, dict | list) and len(tree) > 0
    if not is_parent or (depth and rng.random() < 0.1):
        return _nearby(rng, tree)
    if isinstance(tree, list):
        return _change_list(rng, list(tree), depth)
    changed, key = dict(tree), rng.choice(list(tree))
    match rng.randrange(6):
        case 0:
            del changed[key]
        case 1:
            changed[str(rng.choice(SCALARS))] = odd_value(rng)
        case 2:
            changed[str(key) + rng.choice(("s", "_", "-", " "))] = changed.pop(key)
        case _:
            changed[key] = _change_once(rng, tree[key], depth=depth + 1)
    return changed


def _change_list(rng: Random, items: list[Any], depth: int) -> list[Any]:
    index = rng.randrange(len(items))
    match rng.randrange(4):
        case 0:
            del items[index]
        case 1:
            items.insert(index, odd_value(rng))
        case _:
            items[index] = _change_once(rng, items[index], depth=depth + 1)
    return items


def _nearby(rng: Random, value: Any) -> Any:
    """A value near the old one, or any odd one."""
    if isinstance(value, bytes):
        return change_bytes(rng, value)
    if rng.random() < 0.5:
        return odd_value(rng)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return rng.choice((value + 1, value - 1, -value, value * 2, str(value)))
    if isinstance(value, str):
        return change_bytes(rng, value.encode("utf-8", "replace")).decode("utf-8", "replace")
    return odd_value(rng)
