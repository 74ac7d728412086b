"""Vision transformers: CLIP's towers by their two public names, and Google's ViT."""

from git_jax.convert.table import (
    CONVOLUTION,
    FLAT,
    Row,
    Table,
    boxed,
    layers,
    norm,
)
from git_jax.vision.vit import ViT

CLIP_LAYER = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "out": "self_attn.out_proj",
    "attention_norm": "layer_norm1",
    "up": "mlp.fc1",
    "down": "mlp.fc2",
    "ffn_norm": "layer_norm2",
}


def clip(tower: ViT) -> Table:
    """The names of `CLIPVisionModel`, and of the encoder inside `GitForCausalLM`.

    CLIP's own pooled output and its projection have no part in GIT.
    """
    rows = [
        *_embeddings(
            tower,
            cls=Row("embeddings.class_embedding", "cls"),
            patches="embeddings.patch_embedding",
            position=Row("embeddings.position_embedding.weight", "position"),
        ),
        *layers("encoder.layers.{}.", "stack/layers/", **CLIP_LAYER),
        *norm("post_layernorm", "stack/norm_out"),
    ]
    if tower.norm_before:
        rows += norm("pre_layrnorm", "norm_in")
    return Table(tuple(rows), ignored=(r"embeddings\.position_ids",))


def openai(tower: ViT) -> Table:
    """The names of OpenAI's release, which the original GIT kept.

    `proj`, CLIP's projection to the space of texts, lies in both and is used in neither
    by GIT.
    """
    rows = [
        *_embeddings(
            tower,
            cls=Row("class_embedding", "cls"),
            patches="conv1",
            position=Row("positional_embedding", "position"),
        ),
        *layers(
            "transformer.resblocks.{}.",
            "stack/layers/",
            joined="attn.in_proj_",
            out="attn.out_proj",
            attention_norm="ln_1",
            up="mlp.c_fc",
            down="mlp.c_proj",
            ffn_norm="ln_2",
        ),
        *norm("ln_post", "stack/norm_out"),
    ]
    if tower.norm_before:
        rows += norm("ln_pre", "norm_in")
    return Table(tuple(rows), ignored=("proj",))


def google(tower: ViT) -> Table:
    """The names of a `ViTModel`'s files, whose pooler has no part in GIT."""
    rows = [
        *_embeddings(
            tower,
            cls=Row("embeddings.cls_token", "cls", boxed(2)),
            patches="embeddings.patch_embeddings.projection",
            position=Row("embeddings.position_embeddings", "position", boxed(1)),
        ),
        *layers(
            "encoder.layer.{}.",
            "stack/layers/",
            query="attention.attention.query",
            key="attention.attention.key",
            value="attention.attention.value",
            out="attention.output.dense",
            attention_norm="layernorm_before",
            up="intermediate.dense",
            down="output.dense",
            ffn_norm="layernorm_after",
        ),
        *norm("layernorm", "stack/norm_out"),
    ]
    return Table(tuple(rows), ignored=(r"pooler\..*",))


def _embeddings(tower: ViT, *, cls: Row, patches: str, position: Row) -> list[Row]:
    rows = [Row(f"{patches}.weight", "patches/kernel", CONVOLUTION), position]
    if tower.class_token:
        rows.append(cls)
    if tower.patch_bias:
        rows.append(Row(f"{patches}.bias", "patches/bias", FLAT))
    return rows
