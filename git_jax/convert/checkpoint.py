"""What a published checkpoint is here: a config, parameters and a tokenizer.

Enough to caption with, to fine-tune from, and to write again in any form.
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from git_jax.data.tokenizer import Tokenizer
from git_jax.models.git import Git


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model and its weights.

    config      a run's, from which a GIT can be fine-tuned; of an encoder alone
                `encoder`, `pixel_mean` and `pixel_std`
    params      in our form, on the host
    tokenizer   None of an encoder alone
    """

    config: ConfigDict
    params: Any
    tokenizer: Tokenizer | None


def shapes(module: nn.Module) -> Any:
    """Shapes of the parameters of a GIT or of an encoder."""
    tower = module.encoder if isinstance(module, Git) else module
    size = getattr(tower, "size", 64)
    frames = jnp.zeros((1, 1, size, size, 3))
    batch = {"frames": frames, "tokens": jnp.zeros((1, 2), jnp.int32)}
    given = batch if isinstance(module, Git) else frames
    return jax.eval_shape(module.init, jax.random.key(0), given)["params"]
