"""Swin: the names of Hugging Face's `SwinModel`, alone or in front of a classifier."""

import re
from collections.abc import Iterable

from git_jax.convert.table import CONVOLUTION, Row, Table, layers, linear, norm
from git_jax.vision.swin import Swin

# How a block's parts are called in files, and in a module of transformers 5, which
# renames what it loads and names it back when it saves.
IN_FILES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "up": "intermediate.dense",
    "down": "output.dense",
}
IN_MODULES = {
    "query": "attention.q_proj",
    "key": "attention.k_proj",
    "value": "attention.v_proj",
    "out": "attention.o_proj",
    "up": "mlp.fc1",
    "down": "mlp.fc2",
}
NORMS = {"attention_norm": "layernorm_before", "ffn_norm": "layernorm_after"}
IGNORED = (r".*relative_position_index", r".*mask_token", r"(classifier|decoder)\..*")


def huggingface(swin: Swin, names: Iterable[str] = ()) -> Table:
    """The names of `SwinModel`, spelt as those that are given.

    Without any, as in files of transformers. With a classifier they begin with `swin.`;
    its head is passed over, as are masks and buffers.

    Raises:
        ValueError: transformers has no such encoder.
    """
    if swin.merge != "patches":
        raise ValueError(
            f"a Swin with merge {swin.merge!r} has no names elsewhere: transformers "
            f"has only merge 'patches'"
        )
    found = list(names)
    module = any(".mlp.fc1." in name for name in found)
    parts = IN_MODULES if module else IN_FILES
    table = "attention.relative_position_bias" if module else "attention.self"
    patches = "embeddings.patch_embeddings.projection"
    rows = [
        Row(f"{patches}.weight", "patches/kernel", CONVOLUTION),
        Row(f"{patches}.bias", "patches/bias"),
        *norm("embeddings.norm", "patches_norm"),
        *norm("layernorm", "norm_out"),
    ]
    for i in range(len(swin.depths)):
        blocks = f"encoder.layers.{i}.blocks.{{}}."
        ours = f"stages_{i}/layers/"
        rows += layers(blocks, ours, **parts, **NORMS)
        rows.append(
            Row(f"{blocks}{table}.relative_position_bias_table", f"{ours}relative")
        )
    for i in range(len(swin.depths) - 1):
        merge = f"encoder.layers.{i}.downsample"
        reduce = Row(f"{merge}.reduction.weight", f"merges_{i}/reduce/kernel", linear())
        rows += [*norm(f"{merge}.norm", f"merges_{i}/norm"), reduce]
    if not swin.qkv_bias:
        bias = re.compile(r".*attention/(query|key|value)/bias")
        rows = [row for row in rows if not any(map(bias.fullmatch, row.parts))]
    inside = any(name.startswith("swin.embeddings.") for name in found)
    whole = Table(tuple(rows)).below("swin." if inside else "", "")
    return Table(whole.rows, IGNORED)
