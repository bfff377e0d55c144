"""Vision transformers saved by Hugging Face transformers, renamed to timm's tensors.

The two libraries compute the same function; transformers keeps query, key and value apart where
timm stacks them. Names as in ``ViTModel`` and ``Dinov2Model``.
"""

from __future__ import annotations

import re

import torch

from models.weights import StateDict

_EMBEDDINGS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
_IN_LAYER = {
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",  # ViT
    "output.dense": "mlp.fc2",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "mlp.fc1": "mlp.fc1",  # DINOv2
    "mlp.fc2": "mlp.fc2",
    "norm1": "norm1",
    "norm2": "norm2",
    "layer_scale1": "ls1",
    "layer_scale2": "ls2",
}
_LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias|lambda1)")
_QKV = re.compile(r"attention\.attention\.(query|key|value)")
_UNUSED = ("embeddings.mask_token", "pooler.")


def timm_names(state: StateDict) -> dict[str, torch.Tensor]:
    """Rename a transformers ViT or DINOv2 state dict; unknown names stay, to fail the strict load.

    Parameters
    ----------
    state
        Tensors by transformers' names, with or without the prefix ``vit.`` or ``dinov2.``.
    """
    renamed: dict[str, torch.Tensor] = {}
    stacks: dict[str, dict[str, torch.Tensor]] = {}
    for full, tensor in state.items():
        name = re.sub(r"^(vit|dinov2)\.", "", full)
        if name.startswith(_UNUSED):
            continue
        layer = _LAYER.fullmatch(name)
        if layer is None:
            renamed[_EMBEDDINGS.get(name, name)] = tensor
            continue
        block, module, kind = layer.groups()
        qkv = _QKV.fullmatch(module)
        if qkv is not None:
            stacks.setdefault(f"blocks.{block}.attn.qkv.{kind}", {})[qkv[1]] = tensor
        else:
            suffix = "gamma" if kind == "lambda1" else kind
            renamed[f"blocks.{block}.{_IN_LAYER.get(module, module)}.{suffix}"] = tensor
    for name, parts in stacks.items():
        renamed[name] = torch.cat([parts["query"], parts["key"], parts["value"]])
    return renamed
