"""What a published checkpoint is here: a config, parameters and a tokenizer.

Enough to caption with, to fine-tune from, and to write again in any form.
"""

from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

from git_jax.data.tokenizer import Tokenizer


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
