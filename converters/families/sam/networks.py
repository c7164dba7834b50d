"""The two networks of SAM and SAM 2 as modules that every exporter can trace: no branch depends on data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgecv._internal.extras import require
from edgecv.converters.families.torch_input import pixel_module
from edgecv.protocols import Array
from edgecv.results import Image
from edgecv.specs import PreprocessSpec
from edgecv.vision.sam import NO_POINT, PADDING_BGR

_KINDS = 5  # NO_POINT to BOTTOM_RIGHT
_NEVER = -1e4  # added before a softmax: e to its power is 0 in fp32 and fits into fp16


def normalised(image: Image, network: Any) -> Array:
    """A fitted ``(S, S, 3)`` BGR image as SAM's ``(1, 3, S, S)`` float input; padding is exactly 0."""
    mean, std = (tensor.numpy().reshape(3) for tensor in (network.pixel_mean, network.pixel_std))
    real = (image[..., ::-1].astype(np.float32) - mean) / std
    real[(image == PADDING_BGR).all(axis=-1)] = 0
    return np.ascontiguousarray(real.transpose(2, 0, 1)[None], np.float32)


def encoder_module(network: Any) -> Any:
    """From ``(1, S, S, 3)`` uint8 BGR to ``(1, 256, S/16, S/16)`` embeddings."""
    torch = require("torch", "convert")

    class Encoder(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.encoder = network.image_encoder
            self.register_buffer("mean", network.pixel_mean.reshape(1, 3, 1, 1).clone())
            self.register_buffer("std", network.pixel_std.reshape(1, 3, 1, 1).clone())
            self.register_buffer("padding", torch.tensor(PADDING_BGR[::-1]).float().view(1, 3, 1, 1))

        def forward(self, image: Any) -> Any:
            rgb = image.permute(0, 3, 1, 2).float().flip(1)
            # Whole numbers: the distance from the padding colour is 0 or at least 1.
            inside = (rgb - self.padding).abs().sum(1, keepdim=True).clamp(max=1.0)
            return self.encoder((rgb - self.mean) / self.std * inside)

    return Encoder().eval()


def encoder2_module(network: Any, spec: PreprocessSpec) -> Any:
    """SAM 2: from ``(1, S, S, 3)`` uint8 BGR to embeddings ``(1, 256, S/16, S/16)`` and features at S/4 and S/8."""
    torch = require("torch", "convert")

    class Encoder(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.masks = network.image_encoder, network.sam_mask_decoder
            self.register_buffer("no_memory", network.no_mem_embed.detach().reshape(1, -1, 1, 1))

        def forward(self, image: Any) -> Any:
            finest, finer, coarse = self.encoder(image)["backbone_fpn"]
            return coarse + self.no_memory, self.masks.conv_s0(finest), self.masks.conv_s1(finer)

    return pixel_module(Encoder(), spec)


def decoder_module(prompts: Any, masks: Any, size: int) -> Any:
    """Prompt encoder and mask decoder, with the inputs of SAM's own ONNX export and slots that may stay unused.

    SAM 2's mask decoder has a token more and adds finer features of the image, which come as two more inputs. ``size`` is the
    image's in model pixels.
    """
    torch = require("torch", "convert")
    second = hasattr(masks, "obj_score_token")

    class Decoder(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.prompts, self.masks = prompts, masks
            kinds = [layer.weight.detach() for layer in prompts.point_embeddings]
            self.register_buffer("kinds", torch.cat([prompts.not_a_point_embed.weight.detach(), *kinds]))
            self.register_buffer("dense_pe", prompts.get_dense_pe().detach())

        def forward(self, embeddings: Any, *rest: Any) -> Any:
            *fine, coords, labels, mask, has_mask = rest
            given = has_mask.view(1, 1, 1, 1)
            absent = self.prompts.no_mask_embed.weight.view(1, -1, 1, 1)
            dense = given * self.prompts.mask_downscaling(mask) + (1 - given) * absent
            unused = (labels < NO_POINT - 0.5).float()
            return self._decode(embeddings + dense, fine, self._points(coords, labels), unused)

        def _points(self, coords: Any, labels: Any) -> Any:
            encoded = self.prompts.pe_layer._pe_encoding((coords + 0.5) / size)
            sparse = encoded * (labels > NO_POINT + 0.5).float().unsqueeze(-1)
            for index in range(_KINDS):
                sparse = sparse + (labels == NO_POINT + index).float().unsqueeze(-1) * self.kinds[index]
            return sparse

        def _decode(self, image: Any, fine: Any, points: Any, unused: Any) -> Any:
            masks = self.masks
            first = [masks.obj_score_token.weight] if second else []
            own = torch.cat([*first, masks.iou_token.weight, masks.mask_tokens.weight], dim=0).unsqueeze(0)
            bias = torch.cat([torch.zeros_like(own[..., 0]), unused * _NEVER], dim=1).view(1, 1, 1, -1)
            tokens = torch.cat([own, points], dim=1)
            found, seen = _two_way(torch, masks.transformer, image, self.dense_pe, tokens, bias)
            found = found[:, len(first) :, :]
            pixels = self._upscaled(seen.transpose(1, 2).reshape(image.shape), fine)
            answers = [mlp(found[:, 1 + at, :]) for at, mlp in enumerate(masks.output_hypernetworks_mlps)]
            height, width = pixels.shape[2:]
            logits = (torch.stack(answers, dim=1) @ pixels.flatten(2)).reshape(1, len(answers), height, width)
            return logits, masks.iou_prediction_head(found[:, 0, :])

        def _upscaled(self, seen: Any, fine: Any) -> Any:
            if not fine:
                return self.masks.output_upscaling(seen)
            grow, norm, act, grow_again, act_again = self.masks.output_upscaling
            finest, finer = fine
            return act_again(grow_again(act(norm(grow(seen) + finer))) + finest)

    return Decoder().eval()


def _two_way(torch: Any, network: Any, image: Any, image_pe: Any, tokens: Any, bias: Any) -> tuple[Any, Any]:
    """SAM's two-way transformer over its own layers; ``bias (1, 1, 1, T)`` keeps unused tokens out of every softmax."""
    keys, key_pe = image.flatten(2).permute(0, 2, 1), image_pe.flatten(2).permute(0, 2, 1)
    queries = tokens
    for layer in network.layers:
        if layer.skip_first_layer_pe:
            queries = _attention(torch, layer.self_attn, queries, queries, queries, bias)
        else:
            placed = queries + tokens
            queries = queries + _attention(torch, layer.self_attn, placed, placed, queries, bias)
        queries = layer.norm1(queries)
        attended = layer.cross_attn_token_to_image(q=queries + tokens, k=keys + key_pe, v=keys)
        queries = layer.norm2(queries + attended)
        queries = layer.norm3(queries + layer.mlp(queries))
        attended = _attention(torch, layer.cross_attn_image_to_token, keys + key_pe, queries + tokens, queries, bias)
        keys = layer.norm4(keys + attended)
    attended = network.final_attn_token_to_image(q=queries + tokens, k=keys + key_pe, v=keys)
    return network.norm_final_attn(queries + attended), keys


def _attention(torch: Any, layer: Any, q: Any, k: Any, v: Any, bias: Any) -> Any:
    heads = layer.num_heads
    q, k, v = (_split(made, heads) for made in (layer.q_proj(q), layer.k_proj(k), layer.v_proj(v)))
    weights = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(q.shape[3]) + bias, dim=-1)
    return layer.out_proj((weights @ v).transpose(1, 2).flatten(2))


def _split(tensor: Any, heads: int) -> Any:
    batch, count, channels = tensor.shape
    return tensor.reshape(batch, count, heads, channels // heads).transpose(1, 2)
