"""The order of records: complete passes, every order as likely, shares by weight."""

from collections import Counter

import numpy as np
import pytest

from git_jax.data.mixture import Part
from git_jax.data.order import Shuffled, generator, order


@pytest.mark.parametrize("size", [1, 7, 100])
def test_each_pass_has_every_record_once_in_a_new_order(size: int) -> None:
    drawn = order([Part(0, size, 1.0)], seed=5)
    passes = [[drawn[p * size + i] for i in range(size)] for p in range(4)]
    for one in passes:
        assert sorted(one) == list(range(size))
    assert len({tuple(one) for one in passes}) == (1 if size == 1 else 4)


def test_a_large_source_has_no_list_of_its_records() -> None:
    drawn = order([Part(3, 10**9, 1.0)], seed=5)
    found = {drawn[i] for i in range(500)} | {drawn[10**9 + i] for i in range(500)}
    assert len(found) == 1000 and min(found) >= 3 and max(found) > 9 * 10**8


@pytest.mark.parametrize("size", [2, 3, 63, 64, 65, 2**16 - 1, 2**16, 2**16 + 1])
def test_a_pass_is_complete_at_any_size(size: int) -> None:
    shuffled = Shuffled(size, seed=5)
    for epoch in (0, 3) if size < 1000 else (1,):
        found = [shuffled[epoch * size + i] for i in range(size)]
        assert sorted(found) == list(range(size))


def test_every_order_is_as_likely() -> None:
    orders = Counter(
        tuple(Shuffled(4, seed)[i] for i in range(4)) for seed in range(2400)
    )
    assert len(orders) == 24
    assert sum((count - 100) ** 2 / 100 for count in orders.values()) < 50  # chi2, 23
    size = 60
    places = np.array(
        [[Shuffled(size, seed)[i] for i in range(size)] for seed in range(200)]
    )
    assert abs((places == np.arange(size)).sum(axis=1).mean() - 1) < 0.3
    assert abs((np.diff(places) == 1).mean() * size - 1) < 0.3


def test_parts_are_drawn_by_weight_each_in_passes_of_its_own() -> None:
    drawn = order([Part(0, 4, 3.0), Part(4, 5, 1.0)], seed=0)
    found = [drawn[i] for i in range(80)]
    for start in range(0, 80, 4):
        assert sum(i < 4 for i in found[start : start + 4]) == 3
    for part in ([i for i in found if i < 4], [i for i in found if i >= 4]):
        assert len(set(Counter(part).values())) == 1  # each as often as the others


def test_generators_are_keyed_by_seed_position_and_attempt() -> None:
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2**31, 2**40, 3)]
    drawn = [tuple(generator(*key).integers(2**60, size=4)) for key in keys]
    assert len(set(drawn)) == len(keys)
    assert drawn == [tuple(generator(*k).integers(2**60, size=4)) for k in keys]
    plain = np.random.Generator(np.random.Philox(key=[1, 0])).integers(2**60, size=4)
    assert drawn[1] == tuple(plain)
