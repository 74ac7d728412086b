"""What a file leaves out is what the classes of transformers would have."""

import pytest

from git_jax.convert import defaults

transformers = pytest.importorskip(
    "transformers", reason="requirements-parity.txt is not installed"
)


@pytest.mark.parametrize(
    "kind, held",
    [
        (transformers.GitConfig, defaults.GIT),
        (transformers.GitVisionConfig, defaults.GIT_VISION),
        (transformers.CLIPVisionConfig, defaults.CLIP_VISION),
        (transformers.ViTConfig, defaults.VIT),
        (transformers.SwinConfig, defaults.SWIN),
        (transformers.Florence2VisionConfig, defaults.DAVIT),
    ],
)
def test_the_defaults_are_those_of_the_class(kind, held):
    there = kind().to_dict()
    found = {key: there[key] for key in held}
    assert found == {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in held.items()
    }
