"""The configs of Hugging Face's GIT and of encoders, as models of ours.

Both ways are held to account: a setting that this project cannot honour is refused by
its name, and so is a model that the class there cannot be.
"""

from collections.abc import Mapping
from typing import Any

from git_jax.config import Node, spec
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

# What a file leaves out when it is the default of the class there.
DEFAULTS: dict[str, Any] = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 1024,
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
    "pad_token_id": 0,
    "bos_token_id": 101,
    "eos_token_id": 102,
    "tie_word_embeddings": False,
    "num_image_with_embedding": None,
}
VISION_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 16,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
}
SWIN_DEFAULTS: dict[str, Any] = {
    "num_channels": 3,
    "patch_size": 4,
    "embed_dim": 96,
    "depths": (2, 2, 6, 2),
    "num_heads": (3, 6, 12, 24),
    "window_size": 7,
    "mlp_ratio": 4.0,
    "qkv_bias": True,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "drop_path_rate": 0.1,
    "hidden_act": "gelu",
    "use_absolute_embeddings": False,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-5,
}
DAVIT_DEFAULTS: dict[str, Any] = {
    "in_channels": 3,
    "depths": (1, 1, 9, 1),
    "patch_size": (7, 3, 3, 3),
    "patch_stride": (4, 2, 2, 2),
    "patch_padding": (3, 1, 1, 1),
    "patch_prenorm": (False, True, True, True),
    "embed_dim": (128, 256, 512, 1024),
    "num_heads": (4, 8, 16, 32),
    "num_groups": (4, 8, 16, 32),
    "window_size": 12,
    "drop_path_rate": 0.1,
    "mlp_ratio": 4.0,
    "qkv_bias": True,
    "activation_function": "gelu",
    "initializer_range": 0.02,
}
VIT_DEFAULTS: dict[str, Any] = VISION_DEFAULTS | {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "attention_probs_dropout_prob": 0.0,
    "hidden_dropout_prob": 0.0,
    "qkv_bias": True,
}

DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")


def git(given: Mapping[str, Any], *, where: str) -> Node:
    """The model that a `config.json` of `GitForCausalLM` describes.

    Raises:
        ValueError: it describes another architecture, or a setting that has no
            counterpart here.
    """
    _require_type(given, "git", "GitForCausalLM", where)
    held = DEFAULTS | dict(given)
    frames = held["num_image_with_embedding"]
    if frames == 1:
        raise ValueError(
            f"{where}: num_image_with_embedding is 1, an embedding that every picture "
            f"would get alike; there is no such model here"
        )
    width = held["hidden_size"]
    vision = {} if given.get("vision_config") is None else given["vision_config"]
    tower = clip(vision, where=f"{where}: vision_config")
    return spec(
        Git,
        encoder=tower,
        embed=spec(
            TextEmbed,
            width=width,
            vocabulary=held["vocab_size"],
            positions=held["max_position_embeddings"],
            tied=held["tie_word_embeddings"],
            epsilon=float(held["layer_norm_eps"]),
            dropout=float(held["hidden_dropout_prob"]),
            std=float(held["initializer_range"]),
        ),
        decoder=spec(
            Stack,
            width=width,
            depth=held["num_hidden_layers"],
            heads=held["num_attention_heads"],
            mlp=held["intermediate_size"],
            norm="post",
            activation=_activation(held, where),
            epsilon=float(held["layer_norm_eps"]),
            dropout=float(held["hidden_dropout_prob"]),
            attention_dropout=float(held["attention_probs_dropout_prob"]),
            std=float(held["initializer_range"]),
        ),
        frames=frames or 1,
        epsilon=tower.epsilon,
    )


def clip(given: Mapping[str, Any], *, where: str) -> Node:
    """The tower that a config of `CLIPVisionModel` or of GIT's encoder describes."""
    held = VISION_DEFAULTS | dict(given)
    _require_colours(held, where)
    _require_none(held, ("attention_dropout",), where)
    return spec(
        ViT,
        size=_side(held, "image_size", where),
        patch=_side(held, "patch_size", where),
        width=held["hidden_size"],
        depth=held["num_hidden_layers"],
        heads=held["num_attention_heads"],
        mlp=held["intermediate_size"],
        activation=_activation(held, where),
        epsilon=float(held["layer_norm_eps"]),
        std=float(held["initializer_range"]),
    )


def vit(given: Mapping[str, Any], *, where: str) -> Node:
    """The encoder that a config of `ViTModel` describes."""
    held = VIT_DEFAULTS | dict(given)
    if not held["qkv_bias"]:
        raise ValueError(f"{where}: qkv_bias is false; attention here has biases")
    _require_none(held, DROPOUTS, where)
    tower = clip(held, where=where)
    tower.patch_bias, tower.norm_before = True, False
    return tower


def swin(given: Mapping[str, Any], *, where: str) -> Node:
    """The encoder that a config of `SwinModel` describes.

    Raises:
        ValueError: it describes another architecture, or a setting that has no
            counterpart here.
    """
    _require_type(given, "swin", "SwinModel", where)
    held = SWIN_DEFAULTS | dict(given)
    _require_none(held, (*DROPOUTS, "use_absolute_embeddings"), where)
    _require_colours(held, where)
    return spec(
        Swin,
        patch=_side(held, "patch_size", where),
        embed=held["embed_dim"],
        depths=tuple(held["depths"]),
        heads=tuple(held["num_heads"]),
        window=held["window_size"],
        mlp_ratio=float(held["mlp_ratio"]),
        activation=_activation(held, where),
        epsilon=float(held["layer_norm_eps"]),
        qkv_bias=held["qkv_bias"],
        drop_path=float(held["drop_path_rate"]),
        std=float(held["initializer_range"]),
    )


def davit(given: Mapping[str, Any], *, where: str) -> Node:
    """The encoder that a config of `Florence2VisionBackbone` describes.

    Raises:
        ValueError: it describes another architecture, or a setting that has no
            counterpart here.
    """
    _require_type(given, "florence_vision", "Florence2VisionBackbone", where)
    held = DAVIT_DEFAULTS | dict(given)
    _require_colours(held, where, "in_channels")
    return spec(
        DaViT,
        patch=tuple(held["patch_size"]),
        stride=tuple(held["patch_stride"]),
        padding=tuple(held["patch_padding"]),
        patch_norm=tuple("pre" if pre else "post" for pre in held["patch_prenorm"]),
        widths=tuple(held["embed_dim"]),
        depths=tuple(held["depths"]),
        heads=tuple(held["num_heads"]),
        groups=tuple(held["num_groups"]),
        window=held["window_size"],
        mlp_ratio=float(held["mlp_ratio"]),
        activation=_activation(held, where, "activation_function"),
        qkv_bias=held["qkv_bias"],
        drop_path=float(held["drop_path_rate"]),
        std=float(held["initializer_range"]),
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


def _require_none(
    held: Mapping[str, Any], settings: tuple[str, ...], where: str
) -> None:
    """ValueError naming a setting that is on, and that encoders here do not have."""
    for name in settings:
        if held[name]:
            raise ValueError(
                f"{where}: {name} is {held[name]}; encoders here have none, as every "
                f"published one"
            )


def _require_colours(
    held: Mapping[str, Any], where: str, key: str = "num_channels"
) -> None:
    if held[key] != 3:
        raise ValueError(f"{where}: {key} is {held[key]}; pictures here have 3")


def _theirs(activation: str) -> str:
    return next(name for name, ours in ACTIVATIONS.items() if ours == activation)


def _side(held: Mapping[str, Any], key: str, where: str) -> int:
    """A length that may be written twice, for height and width."""
    value = held[key]
    if isinstance(value, list | tuple) and len(set(value)) == 1:
        value = value[0]
    if not isinstance(value, int):
        raise ValueError(f"{where}: {key} is {value}; only squares are read")
    return value
