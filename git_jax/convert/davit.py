"""DaViT: the names of Hugging Face's `Florence2VisionBackbone`."""

from git_jax.convert.table import CONVOLUTION, Row, Table, layers, norm
from git_jax.vision.davit import DaViT

# How the parts of a block are called there, and its attention in each kind of block.
PARTS = {
    "attention_norm": "norm1",
    "up": "ffn.fc1",
    "down": "ffn.fc2",
    "ffn_norm": "norm2",
}
BLOCKS = {"spatial": "window_attn", "channel": "channel_attn"}
POSITIONS = {"conv1": "attention_position", "conv2": "ffn_position"}


def huggingface(davit: DaViT) -> Table:
    """The names of the backbone alone, which Florence-2 has below `vision_tower.`."""
    rows = []
    for i in range(len(davit.depths)):
        rows += _convolution(f"convs.{i}.conv", f"patches_{i}/convolve")
        rows += norm(f"convs.{i}.norm", f"patches_{i}/norm")
        for block, attention in BLOCKS.items():
            theirs = f"blocks.{i}.{{}}.{block}_block."
            ours = f"stages_{i}/layers/{block}/"
            names = PARTS | {"joined": f"{attention}.qkv.", "out": f"{attention}.proj"}
            rows += layers(theirs, ours, **names)
            for there, here in POSITIONS.items():
                rows += _convolution(theirs + there, ours + here)
    if not davit.qkv_bias:
        rows = [row for row in rows if not row.theirs.endswith(".qkv.bias")]
    return Table(tuple(rows))


def _convolution(theirs: str, ours: str) -> list[Row]:
    return [
        Row(f"{theirs}.weight", f"{ours}/kernel", CONVOLUTION),
        Row(f"{theirs}.bias", f"{ours}/bias"),
    ]
