"""Which frames of a record are seen."""

import itertools

import pytest

from git_jax.data.clip import sampled


@pytest.mark.parametrize(
    "frames, count, seen",
    [
        ("abcdef", 3, "acf"),
        ("abcdef", 2, "af"),
        ("abcdef", 6, "abcdef"),
        ("abc", 6, "abc"),
        ("a", 1, "a"),
        ("abcdefghijk", 6, "acegik"),
    ],
)
def test_frames_are_sampled_evenly(frames: str, count: int, seen: str) -> None:
    assert "".join(sampled(frames, count)) == seen


@pytest.mark.parametrize("length", [7, 11, 30, 301])
def test_six_frames_span_the_clip(length: int) -> None:
    seen = sampled(range(length), 6)
    distances = [after - before for before, after in itertools.pairwise(seen)]
    assert (len(seen), seen[0], seen[-1]) == (6, 0, length - 1)
    assert max(distances) - min(distances) <= 1
