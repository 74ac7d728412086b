"""Which frames of a record are seen."""

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
