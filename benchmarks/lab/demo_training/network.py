"""The demo's detector: a small anchor-free network with three levels and a decoupled head, defined here in plain torch.

The form is that of today's one-stage detectors, built from the papers: centre points instead of anchors (FCOS, Tian et al. 2019,
arXiv:1904.01355), a branch each for boxes and classes (YOLOX, Ge et al. 2021, arXiv:2107.08430), distances as distributions
(Generalized Focal Loss, Li et al. 2020, arXiv:2006.04388), levels joined top-down (FPN, Lin et al. 2017, arXiv:1612.03144), split
blocks (CSPNet, Wang et al. 2019, arXiv:1911.11929). Only ``demo_training`` loads this module: it imports torch at its top.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

STRIDES = (8, 16, 32)
BINS = 16  # of the distribution of each distance; the farthest is BINS - 1 cells
_BACKBONE = (16, 32, 48, 80, 128)  # channels at strides 2, 4, 8, 16, 32
_NECK = 48
_HEAD = 48
_PRIOR = 0.01  # score of every cell before training (RetinaNet, Lin et al. 2017, arXiv:1708.02002, section 4.1)

Tensor = Any  # torch.Tensor; the project's type checks run without torch's types


class Unit(nn.Module):  # type: ignore[misc]
    """Convolution, batch norm, SiLU."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(channels_out, momentum=0.03, eps=1e-3)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in, H, W)`` to ``(B, out, H / stride, W / stride)``."""
        return self.act(self.norm(self.conv(x)))

    def fuse(self) -> None:
        """Fold the batch norm into the convolution; for inference only."""
        self.conv = nn.utils.fusion.fuse_conv_bn_eval(self.conv, self.norm)
        self.norm = nn.Identity()


class SplitBlock(nn.Module):  # type: ignore[misc]
    """Half of the channels go through two residual convolutions, the other half past them."""

    def __init__(self, channels_in: int, channels_out: int, residual: bool = True) -> None:
        super().__init__()
        half = channels_out // 2
        self.residual = residual
        self.past = Unit(channels_in, half, 1)
        self.enter = Unit(channels_in, half, 1)
        self.deep = nn.Sequential(Unit(half, half), Unit(half, half))
        self.join = Unit(2 * half, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in, H, W)`` to ``(B, out, H, W)``."""
        entered = self.enter(x)
        deep = self.deep(entered)
        return self.join(torch.cat([entered + deep if self.residual else deep, self.past(x)], dim=1))


class Backbone(nn.Module):  # type: ignore[misc]
    """Pixels to features at strides 8, 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        c2, c4, c8, c16, c32 = _BACKBONE
        self.stem = nn.Sequential(Unit(3, c2, stride=2), Unit(c2, c4, stride=2), SplitBlock(c4, c4))
        self.level8 = nn.Sequential(Unit(c4, c8, stride=2), SplitBlock(c8, c8))
        self.level16 = nn.Sequential(Unit(c8, c16, stride=2), SplitBlock(c16, c16))
        self.level32 = nn.Sequential(Unit(c16, c32, stride=2), SplitBlock(c32, c32))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(B, 3, H, W)`` to one feature map per stride."""
        at8 = self.level8(self.stem(image))
        at16 = self.level16(at8)
        return at8, at16, self.level32(at16)


class Neck(nn.Module):  # type: ignore[misc]
    """What the coarse levels know, brought to the fine ones."""

    def __init__(self) -> None:
        super().__init__()
        _, _, c8, c16, c32 = _BACKBONE
        self.join32 = Unit(c32, _NECK, 1)
        self.join16 = SplitBlock(_NECK + c16, _NECK, residual=False)
        self.join8 = SplitBlock(_NECK + c8, _NECK, residual=False)

    def forward(self, features: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Feature maps per stride in, the same with ``_NECK`` channels out."""
        at8, at16, at32 = features
        up = nn.functional.interpolate
        out32 = self.join32(at32)
        out16 = self.join16(torch.cat([up(out32, scale_factor=2.0, mode="nearest"), at16], dim=1))
        out8 = self.join8(torch.cat([up(out16, scale_factor=2.0, mode="nearest"), at8], dim=1))
        return out8, out16, out32


class Head(nn.Module):  # type: ignore[misc]
    """Of one level: logits of the distances' bins, and of the classes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.box = nn.Sequential(Unit(_NECK, _HEAD), nn.Conv2d(_HEAD, 4 * BINS, 1))
        self.score = nn.Sequential(Unit(_NECK, _HEAD), nn.Conv2d(_HEAD, classes, 1))
        nn.init.constant_(self.score[-1].bias, math.log(_PRIOR / (1 - _PRIOR)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, _NECK, H, W)`` to ``(B, 4 * BINS, H, W)`` and ``(B, classes, H, W)``."""
        return self.box(x), self.score(x)


class ShapeDetector(nn.Module):  # type: ignore[misc]
    """The whole network, up to the raw head: RGB pixels 0 to 1 ``(B, 3, H, W)``, sides multiples of 32."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.backbone = Backbone()
        self.neck = Neck()
        self.heads = nn.ModuleList(Head(classes) for _ in STRIDES)

    def forward(self, image: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Box logits ``(B, 4 * BINS, h, w)`` and class logits ``(B, classes, h, w)`` per stride."""
        features = self.neck(self.backbone(image))
        return [head(x) for head, x in zip(self.heads, features, strict=True)]

    def fuse(self) -> ShapeDetector:
        """Fold every batch norm, in place; for inference only."""
        for module in list(self.modules()):
            if isinstance(module, Unit):
                module.fuse()
        return self


class Prediction(nn.Module):  # type: ignore[misc]
    """For export: image to ``(1, 4 + classes, N)`` of centre x, centre y, width, height in input pixels and sigmoid scores."""

    def __init__(self, network: ShapeDetector, size_wh: tuple[int, int]) -> None:
        super().__init__()
        self.network = network
        points, strides = cell_centers(size_wh)
        self.register_buffer("points", points.T[None])  # (1, 2, N), in cells
        self.register_buffer("strides", strides[None, None])  # (1, 1, N)
        self.register_buffer("positions", torch.arange(BINS, dtype=torch.float32)[:, None])

    def forward(self, image: Tensor) -> Tensor:
        """``(1, 3, H, W)`` to ``(1, 4 + classes, N)``."""
        boxes, scores = flatten_levels(self.network(image))
        bins = boxes.reshape(1, 4, BINS, -1).transpose(2, 3)
        distances = (bins.softmax(dim=3) @ self.positions).squeeze(3)
        low, high = self.points - distances[:, :2], self.points + distances[:, 2:]
        xywh = torch.cat([(low + high) / 2, high - low], dim=1) * self.strides
        return torch.cat([xywh, scores.sigmoid()], dim=1)


def flatten_levels(levels: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Box logits ``(B, 4 * BINS, N)`` and class logits ``(B, classes, N)`` of all cells, fine level first."""
    boxes = torch.cat([box.flatten(2) for box, _ in levels], dim=2)
    scores = torch.cat([score.flatten(2) for _, score in levels], dim=2)
    return boxes, scores


def cell_centers(size_wh: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Centres ``(N, 2)`` of all cells, x and y in cells of their level, and the strides ``(N,)``.

    They stand in the order of ``flatten_levels``: fine level first, along rows.
    """
    points, strides = [], []
    for stride in STRIDES:
        columns, rows = size_wh[0] // stride, size_wh[1] // stride
        y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
        points.append(torch.stack([x.flatten(), y.flatten()], dim=1))
        strides.append(torch.full((rows * columns,), float(stride)))
    return torch.cat(points), torch.cat(strides)
