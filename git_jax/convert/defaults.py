"""What a `config.json` leaves out: the defaults of the classes of transformers.

Of each class what bears on the model here, for `settings.held`.
"""

from typing import Any

GIT: dict[str, Any] = {
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
GIT_VISION: dict[str, Any] = {
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
CLIP_VISION: dict[str, Any] = GIT_VISION | {"patch_size": 32}
VIT: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 16,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.02,
    "qkv_bias": True,
}
SWIN: dict[str, Any] = {
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
DAVIT: dict[str, Any] = {
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
