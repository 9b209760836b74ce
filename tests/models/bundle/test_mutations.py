"""Seeded mutations: a damaged manifest loads, or is refused in one sentence, and nothing else."""

import json
import random
import time
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from support.manifests import MANIFEST_VALUE

from z1_ros.errors import Z1Error
from z1_ros.models.bundle.manifest import MANIFEST, TaskExpert, load_bundle, replace, write_manifest

ODD = (
    *(None, True, False, 0, -1, 1, 7, 1.5, -0.0, 5e-324, 1e6, 9e18, 10**9, 2**62, 10**400),
    *(float("nan"), float("inf"), "", "x", "a" * 10_000, "\n", "\0", "../x", "..", MANIFEST),
    *([], {}, [[]], [{}], {"a": 1}, [1, 2, 3], ["a", "a"], [None], {"": 1}, "quantile", "*"),
)
ROUNDS = 600


def places(data: Any, place: tuple = ()) -> Iterator[tuple]:
    """Yield the path of every value in parsed JSON."""
    if isinstance(data, (dict, list)):
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield (*place, key)
            yield from places(value, (*place, key))


def value_at(data: Any, place: tuple) -> Any:
    """Return the value at a path."""
    for key in place:
        data = data[key]
    return data


def mutate(data: Any, rng: random.Random) -> None:
    """Change one thing in parsed JSON."""
    known = list(places(data))
    *parents, key = rng.choice(known)
    parent = value_at(data, tuple(parents))
    value = parent[key]
    kind = rng.choice(("remove", "odd", "odd", "copy", "scale", "more", "fewer", "rename", "nest"))
    if kind == "remove":
        del parent[key]
    elif kind == "copy":
        parent[key] = deepcopy(value_at(data, rng.choice(known)))
    elif kind == "scale" and type(value) in (int, float):
        parent[key] = value * rng.choice((-1, 0.5, 2, 1e3, 1e9, 1e18))
    elif kind == "more" and isinstance(value, list):
        value += deepcopy(value)
    elif kind == "fewer" and isinstance(value, list):
        del value[rng.randrange(len(value) + 1) :]
    elif kind == "rename" and isinstance(parent, dict):
        parent[key[:-1]] = parent.pop(key)
    elif kind == "nest":
        for _ in range(rng.choice((3, 70))):
            value = [value]
        parent[key] = value
    else:
        parent[key] = deepcopy(rng.choice(ODD))


@pytest.mark.parametrize("seed", range(3))
def test_a_mutated_manifest_loads_or_is_refused_in_one_sentence(tmp_path, seed: int) -> None:
    (tmp_path / "expert_A.safetensors").write_bytes(b"weights")
    experts = {"A": TaskExpert(instructions=("open *",), made_by={"z1": {"task": "A"}})}
    write_manifest(tmp_path, replace(MANIFEST_VALUE, experts=experts))
    whole = json.loads((tmp_path / MANIFEST).read_text())
    rng, loaded = random.Random(seed), 0
    for round_ in range(ROUNDS // 3):
        data = deepcopy(whole)
        for _ in range(rng.choice((1, 1, 2))):
            mutate(data, rng)
        (tmp_path / MANIFEST).write_text(json.dumps(data))
        started = time.monotonic()
        try:
            load_bundle(tmp_path)
            loaded += 1
        except Z1Error as error:
            text = str(error)
            assert MANIFEST in text or "is missing" in text or "no such expert" in text
            assert "\n" not in text and len(text) < 1500, (round_, text)
        assert time.monotonic() - started < 1, round_
    assert 0 < loaded < ROUNDS / 6
