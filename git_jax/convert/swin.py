"""Swin's table: Hugging Face's `SwinModel`, alone or in front of a classifier."""

from collections.abc import Iterable

from git_jax.convert.table import CONVOLUTION, FLAT, SAME, Row, Table, linear
from git_jax.vision.swin import Swin

# Part of a block here, part of a block in files, and in a module of transformers 5,
# which renames what it loads and names it back when it saves.
PARTS = (
    ("attention/query", "attention.self.query", "attention.q_proj"),
    ("attention/key", "attention.self.key", "attention.k_proj"),
    ("attention/value", "attention.self.value", "attention.v_proj"),
    ("attention/out", "attention.output.dense", "attention.o_proj"),
    ("ffn/up", "intermediate.dense", "mlp.fc1"),
    ("ffn/down", "output.dense", "mlp.fc2"),
)
RELATIVE = (
    "attention.self.relative_position_bias_table",
    "attention.relative_position_bias.relative_position_bias_table",
)
IGNORED = (r".*relative_position_index", r".*mask_token", r"(classifier|decoder)\..*")


def table(swin: Swin, names: Iterable[str] = ()) -> Table:
    """The rows of a Swin, spelt as the given names are.

    Without names, as files of a `SwinModel` spell it. Of `SwinForImageClassification`
    the names begin with `swin.`; its head is passed over, as are masks and buffers.

    Raises:
        ValueError: the encoder is none that transformers has.
    """
    if swin.merge != "patches":
        raise ValueError(
            f"Swin with merge={swin.merge!r} has no counterpart in transformers; only "
            f"merge='patches' converts"
        )
    found = list(names)
    module = any(".mlp.fc1." in name for name in found)
    inside = any(name.startswith("swin.embeddings.") for name in found)
    patches = "embeddings.patch_embeddings.projection"
    rows = [
        Row(f"{patches}.weight", "patches/kernel", CONVOLUTION),
        Row(f"{patches}.bias", "patches/bias"),
        *_norm("embeddings.norm", "patches_norm"),
        *_norm("layernorm", "norm_out"),
    ]
    for stage in range(len(swin.depths)):
        theirs = f"encoder.layers.{stage}"
        rows += _blocks(f"{theirs}.blocks.{{}}", f"stages_{stage}/layers", swin, module)
        if stage + 1 < len(swin.depths):
            rows += _norm(f"{theirs}.downsample.norm", f"merges_{stage}/norm")
            reduce = f"merges_{stage}/reduce/kernel"
            rows += [Row(f"{theirs}.downsample.reduction.weight", reduce, linear())]
    whole = Table(tuple(rows)).below("swin." if inside else "", "")
    return Table(whole.rows, IGNORED)


def _norm(theirs: str, ours: str) -> list[Row]:
    weight = Row(f"{theirs}.weight", f"{ours}/scale")
    return [weight, Row(f"{theirs}.bias", f"{ours}/bias")]


def _blocks(theirs: str, ours: str, swin: Swin, module: bool) -> list[Row]:
    rows = [Row(f"{theirs}.{RELATIVE[module]}", f"{ours}/relative")]
    rows += _norm(f"{theirs}.layernorm_before", f"{ours}/attention_norm")
    rows += _norm(f"{theirs}.layernorm_after", f"{ours}/ffn_norm")
    for part, *spelt in PARTS:
        there, here = f"{theirs}.{spelt[module]}", f"{ours}/{part}"
        out = part == "attention/out"
        heads = part.startswith("attention/") and not out
        rows += [Row(f"{there}.weight", f"{here}/kernel", linear(2 if out else 1))]
        if swin.qkv_bias or not heads:
            rows += [Row(f"{there}.bias", f"{here}/bias", FLAT if heads else SAME)]
    return rows
