"""The configs of Hugging Face's GIT and of encoders, as models of ours.

Both ways are held to account: a setting that this project cannot honour is refused by
its name, and so is a model that the class there cannot be.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from git_jax.config import Node, spec
from git_jax.convert import defaults, settings
from git_jax.models.git import Git
from git_jax.nn.embed import TextEmbed
from git_jax.nn.transformer import Stack
from git_jax.vision.davit import DaViT
from git_jax.vision.swin import Swin
from git_jax.vision.vit import ViT

ACTIVATIONS = {
    "gelu": "gelu",
    "quick_gelu": "quick_gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}

# What encoders here do without, as every published one does.
ABSENT = (
    "attention_dropout",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "use_absolute_embeddings",
)

# The epsilon of the norm of the words and that of the decoder's, in the original
# release. Its port has the latter for both.
RELEASED = (1e-8, 1e-12)


def git(given: Mapping[str, Any], *, where: str) -> Node:
    """The model that a `config.json` of `GitForCausalLM` describes.

    Raises:
        ValueError: it describes another architecture, or a setting that has no
            counterpart here.
    """
    _require_type(given, "git", "GitForCausalLM", where)
    held = _held(given, defaults.GIT, where)
    _require_divides(held, "num_attention_heads", "hidden_size", where)
    frames = held["num_image_with_embedding"]
    if frames is not None and frames < 2:
        raise ValueError(
            f"{where}: num_image_with_embedding is {frames}; it must be null or at "
            f"least 2, as one embedding would be that of every picture"
        )
    width = held["hidden_size"]
    vision = settings.nested(given, "vision_config", where=where)
    tower = git_vision(vision, where=f"{where}: vision_config")
    return spec(
        Git,
        encoder=tower,
        embed=spec(
            TextEmbed,
            width=width,
            vocabulary=held["vocab_size"],
            positions=held["max_position_embeddings"],
            tied=held["tie_word_embeddings"],
            epsilon=held["layer_norm_eps"],
            dropout=held["hidden_dropout_prob"],
            std=held["initializer_range"],
        ),
        decoder=spec(
            Stack,
            width=width,
            depth=held["num_hidden_layers"],
            heads=held["num_attention_heads"],
            mlp=held["intermediate_size"],
            norm="post",
            activation=_activation(held, where),
            epsilon=held["layer_norm_eps"],
            dropout=held["hidden_dropout_prob"],
            attention_dropout=held["attention_probs_dropout_prob"],
            std=held["initializer_range"],
        ),
        frames=frames or 1,
        epsilon=tower.epsilon,
    )


def git_vision(given: Mapping[str, Any], *, where: str) -> Node:
    """The tower that the config of the encoder inside `GitForCausalLM` describes."""
    return _tower(_held(given, defaults.GIT_VISION, where), where)


def clip(given: Mapping[str, Any], *, where: str) -> Node:
    """The tower that a config of `CLIPVisionModel` describes."""
    return _tower(_held(given, defaults.CLIP_VISION, where), where)


def vit(given: Mapping[str, Any], *, where: str) -> Node:
    """The encoder that a config of `ViTModel` describes."""
    held = _held(given, defaults.VIT, where)
    if not held["qkv_bias"]:
        raise ValueError(f"{where}: qkv_bias is false; attention here has biases")
    tower = _tower(held, where)
    tower.patch_bias, tower.norm_before = True, False
    return tower


def _tower(held: Mapping[str, Any], where: str) -> Node:
    """A vision transformer, with CLIP's options."""
    _require_colours(held, where)
    _require_absent(held, where)
    _require_divides(held, "num_attention_heads", "hidden_size", where)
    _require_divides(held, "patch_size", "image_size", where)
    return spec(
        ViT,
        size=held["image_size"],
        patch=held["patch_size"],
        width=held["hidden_size"],
        depth=held["num_hidden_layers"],
        heads=held["num_attention_heads"],
        mlp=held["intermediate_size"],
        activation=_activation(held, where),
        epsilon=held["layer_norm_eps"],
        std=held["initializer_range"],
    )


def swin(given: Mapping[str, Any], *, where: str) -> Node:
    """The encoder that a config of `SwinModel` describes.

    Raises:
        ValueError: it describes another architecture, or a setting that has no
            counterpart here.
    """
    _require_type(given, "swin", "SwinModel", where)
    held = _held(given, defaults.SWIN, where)
    _require_absent(held, where)
    _require_colours(held, where)
    return spec(
        Swin,
        patch=held["patch_size"],
        embed=held["embed_dim"],
        depths=held["depths"],
        heads=held["num_heads"],
        window=held["window_size"],
        mlp_ratio=held["mlp_ratio"],
        activation=_activation(held, where),
        epsilon=held["layer_norm_eps"],
        qkv_bias=held["qkv_bias"],
        drop_path=held["drop_path_rate"],
        std=held["initializer_range"],
    )


def davit(given: Mapping[str, Any], *, where: str) -> Node:
    """The encoder that a config of `Florence2VisionBackbone` describes.

    Raises:
        ValueError: it describes another architecture, or a setting that has no
            counterpart here.
    """
    _require_type(given, "florence_vision", "Florence2VisionBackbone", where)
    held = _held(given, defaults.DAVIT, where)
    _require_colours(held, where, "in_channels")
    return spec(
        DaViT,
        patch=held["patch_size"],
        stride=held["patch_stride"],
        padding=held["patch_padding"],
        patch_norm=tuple("pre" if pre else "post" for pre in held["patch_prenorm"]),
        widths=held["embed_dim"],
        depths=held["depths"],
        heads=held["num_heads"],
        groups=held["num_groups"],
        window=held["window_size"],
        mlp_ratio=held["mlp_ratio"],
        activation=_activation(held, where, "activation_function"),
        qkv_bias=held["qkv_bias"],
        drop_path=held["drop_path_rate"],
        std=held["initializer_range"],
    )


def config_of(model: Git) -> dict[str, Any]:
    """The `config.json` with which `GitForCausalLM` is this model.

    Raises:
        ValueError: naming what of the model that class does not have.
    """
    tower, embed, decoder = model.encoder, model.embed, model.decoder
    if not isinstance(tower, ViT):
        raise ValueError(
            f"GitForCausalLM has the encoder of CLIP, not {type(tower).__name__}"
        )
    wanted = {
        "encoder.stem": (tower.stem, ()),
        "encoder.class_token": (tower.class_token, True),
        "encoder.norm_before": (tower.norm_before, True),
        "encoder.patch_bias": (tower.patch_bias, False),
        "decoder.norm": (decoder.norm, "post"),
        "decoder.final_norm": (decoder.final_norm, False),
        "decoder.dropout": (decoder.dropout, embed.dropout),
        "epsilon": (model.epsilon, tower.epsilon),
    }
    if (embed.epsilon, decoder.epsilon) != RELEASED:
        wanted["embed.epsilon"] = (embed.epsilon, decoder.epsilon)
    if differ := [
        f"model.{name} is {here!r} and must be {there!r}"
        for name, (here, there) in wanted.items()
        if here != there
    ]:
        raise ValueError(f"GitForCausalLM is another model: {'; '.join(differ)}")
    return {
        "architectures": ["GitForCausalLM"],
        "model_type": "git",
        "dtype": "float32",
        "vocab_size": embed.vocabulary,
        "hidden_size": decoder.width,
        "num_hidden_layers": decoder.depth,
        "num_attention_heads": decoder.heads,
        "intermediate_size": decoder.mlp,
        "hidden_act": _theirs(decoder.activation),
        "hidden_dropout_prob": decoder.dropout,
        "attention_probs_dropout_prob": decoder.attention_dropout,
        "max_position_embeddings": embed.positions,
        "layer_norm_eps": decoder.epsilon,
        "initializer_range": decoder.std,
        "tie_word_embeddings": embed.tied,
        "num_image_with_embedding": model.frames if model.frames > 1 else None,
        "vision_config": {
            "model_type": "git_vision_model",
            "hidden_size": tower.width,
            "intermediate_size": tower.mlp,
            "num_hidden_layers": tower.depth,
            "num_attention_heads": tower.heads,
            "num_channels": 3,
            "image_size": tower.size,
            "patch_size": tower.patch,
            "hidden_act": _theirs(tower.activation),
            "layer_norm_eps": tower.epsilon,
            "attention_dropout": 0.0,
            "initializer_range": tower.std,
        },
    }


def _activation(held: Mapping[str, Any], where: str, key: str = "hidden_act") -> str:
    name = held[key]
    if name not in ACTIVATIONS:
        raise ValueError(
            f"{where}: {key} is {name!r}; here are {', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]


def _require_type(given: Mapping[str, Any], kind: str, made: str, where: str) -> None:
    """ValueError where a config is not of the model that the class `made` makes."""
    if given.get("model_type") != kind:
        raise ValueError(
            f"{where}: model_type is {given.get('model_type')!r}, not {kind!r}: it is "
            f"not a checkpoint of {made}"
        )


def _require_absent(held: Mapping[str, Any], where: str) -> None:
    """ValueError naming a setting that is on, and that encoders here do not have."""
    for name in ABSENT:
        if held.get(name):
            raise ValueError(
                f"{where}: {name} is {held[name]}; encoders here have none, as every "
                f"published one"
            )


def _require_divides(
    held: Mapping[str, Any], part: str, whole: str, where: str
) -> None:
    """ValueError naming two lengths, one of which must be made of the other."""
    if held[part] < 1 or held[whole] < 1 or held[whole] % held[part]:
        raise ValueError(
            f"{where}: {part} is {held[part]}, which does not divide {whole}, "
            f"{held[whole]}"
        )


def _require_colours(
    held: Mapping[str, Any], where: str, key: str = "num_channels"
) -> None:
    if held[key] != 3:
        raise ValueError(f"{where}: {key} is {held[key]}; pictures here have 3")


def _theirs(activation: str) -> str:
    return next(name for name, ours in ACTIVATIONS.items() if ours == activation)


def _held(
    given: Mapping[str, Any], unless: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """The settings of a class there, as given or by default."""
    squares = {
        key: _side(given[key], f"{where}: {key}")
        for key in ("image_size", "patch_size")
        if isinstance(given.get(key), list | tuple) and type(unless[key]) is int
    }
    return settings.held({**given, **squares}, unless, where=where)


def _side(value: Sequence[Any], where: str) -> Any:
    """The side of a square that is written twice, for height and width."""
    if len(value) != 2 or value[0] != value[1]:
        raise ValueError(f"{where} is {value}; only squares are read")
    return value[0]
