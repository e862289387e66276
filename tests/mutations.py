"""Seeded structural mutations of a JSON document, to test that readers report invalid files of every kind."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

# `json.loads(json.dumps(value))` gives the same value for all of these, NaN and infinities included.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 0.5, -7, 2**31, 2**63, -(2**63) - 1, 10**400, 1e-300, 1e300, -1e300),
    *(
        float("nan"),
        float("inf"),
        -float("inf"),
        "",
        "0",
        "1",
        "text",
        "a\\b.jpg",
        "../a.jpg",
        "\0",
        "\ud800",
        "é" * 300,
    ),
    *([], {}, [None], [[]], [[[[0]]]], [1, "1"], ["a", "a"], [-1, 10**9], {"id": 1}, {"": None}, [{}, {}]),
)
_KEYS = ("id", "", "image_id", "keypoints", "bbox", "counts", "x")


def mutations(document: Any, count: int, seed: int) -> Iterator[Any]:
    """Yields `count` copies of a JSON document, each with one to three random changes.

    A change replaces, deletes, duplicates, exchanges, renames, nests or scales a value at a random place. All depths
    are equally likely, so that the many numbers of a document do not receive most of the changes. The document is not
    changed, and the same arguments give the same copies.

    Args:
        document: an object or a list.
        count: the number of copies.
        seed: seed of the changes.
    """
    rng = random.Random(seed)
    for _ in range(count):
        mutated = copy.deepcopy(document)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            _mutate(mutated, rng)
        yield mutated


def _mutate(document: Any, rng: random.Random) -> None:
    """Makes one change in place."""
    holder = document
    for _ in range(rng.randrange(5)):
        inner = [value for value in _values(holder) if isinstance(value, dict | list) and value]
        if not inner:
            break
        holder = rng.choice(inner)
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    if keys:
        rng.choice(_CHANGES)(holder, rng.choice(keys), keys, rng)


def _values(holder: Any) -> list[Any]:
    return list(holder.values()) if isinstance(holder, dict) else list(holder)


def _replace(holder: Any, key: Any, keys: list[Any], rng: random.Random) -> None:
    holder[key] = copy.deepcopy(rng.choice(VALUES))


def _delete(holder: Any, key: Any, keys: list[Any], rng: random.Random) -> None:
    del holder[key]


def _duplicate(holder: Any, key: Any, keys: list[Any], rng: random.Random) -> None:
    value = copy.deepcopy(holder[key])
    if isinstance(holder, list):
        holder.insert(rng.randrange(len(holder) + 1), value)
    else:
        holder[rng.choice(_KEYS)] = value


def _exchange(holder: Any, key: Any, keys: list[Any], rng: random.Random) -> None:
    other = rng.choice(keys)
    holder[key], holder[other] = holder[other], holder[key]


def _rename(holder: Any, key: Any, keys: list[Any], rng: random.Random) -> None:
    if isinstance(holder, dict):
        holder[rng.choice((f"{key}s", f"{key}".upper(), ""))] = holder.pop(key)
    else:
        holder.reverse()


def _nest(holder: Any, key: Any, keys: list[Any], rng: random.Random) -> None:
    value = holder[key]
    holder[key] = rng.choice(([value], {"value": value}, json.dumps(value), [value] * 40))


def _scale(holder: Any, key: Any, keys: list[Any], rng: random.Random) -> None:
    value = holder[key]
    is_number = isinstance(value, int | float) and abs(value) < 2**64
    holder[key] = value * rng.choice((-1, 1e9, 0.001)) if is_number else [value, value]


_CHANGES: tuple[Callable[[Any, Any, list[Any], random.Random], None], ...] = (
    *(_replace, _replace, _replace),  # the most varied change
    *(_delete, _duplicate, _exchange, _rename, _nest, _scale),
)
