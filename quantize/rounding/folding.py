"""Fold the batch norms of a torch module into the convolutions before them, so that weights are what the exports hold."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from edgecv._internal.extras import require
from edgecv.protocols import Array

_MOST = 1e-3  # of the largest output: what the order of operations in float32 may change


def folded(module: Any, image: Array) -> Any:
    """A copy of ``module`` without the batch norms that follow a convolution directly; ``module`` itself where there is none.

    Which norm follows which convolution shows when one ``image`` is run. Where the copy computes something else, since an output of
    a convolution is used elsewhere too, the module stays as it is.
    """
    torch = require("torch", "convert")
    pairs = list(_pairs(torch, module, image))
    if not pairs:
        return module
    made = copy.deepcopy(module)
    for convolution, norm in pairs:
        fused = torch.nn.utils.fusion.fuse_conv_bn_eval(made.get_submodule(convolution), made.get_submodule(norm))
        _replace(made, convolution, fused.requires_grad_(False))
        _replace(made, norm, torch.nn.Identity())
    return made if _is_close(torch, module, made, image) else module


def _pairs(torch: Any, module: Any, image: Array) -> Iterator[tuple[str, str]]:
    """Names of convolutions and of the batch norms that take what they make; each ran once."""
    made: list[tuple[str, Any]] = []  # outputs are kept: the place of one that is freed is used again
    taken: list[tuple[str, Any]] = []
    hooks = []
    for name, layer in module.named_modules():
        if isinstance(layer, torch.nn.Conv2d):
            hooks.append(layer.register_forward_hook(lambda _, __, output, name=name: made.append((name, output))))
        elif isinstance(layer, torch.nn.BatchNorm2d):
            hooks.append(layer.register_forward_pre_hook(lambda _, inputs, name=name: taken.append((name, inputs[0]))))
    try:
        _run(torch, module, image)
    finally:
        for hook in hooks:
            hook.remove()
    by_place = {id(output): name for name, output in made}
    once = {name for names in (made, taken) for name, _ in names if [n for n, _ in names].count(name) == 1}
    for norm, tensor in taken:
        convolution = by_place.get(id(tensor))
        if convolution in once and norm in once:
            yield str(convolution), norm


def _replace(module: Any, name: str, layer: Any) -> None:
    parent, _, own = name.rpartition(".")
    setattr(module.get_submodule(parent), own, layer)


def _run(torch: Any, module: Any, image: Array) -> tuple[Any, ...]:
    with torch.no_grad():
        found = module(torch.from_numpy(image))
    return tuple(found) if isinstance(found, (tuple, list)) else (found,)


def _is_close(torch: Any, module: Any, made: Any, image: Array) -> bool:
    pairs = zip(_run(torch, module, image), _run(torch, made, image), strict=True)
    return all(
        float(np.abs(found.numpy() - wanted.numpy()).max()) <= _MOST * max(float(wanted.abs().max()), 1e-12)
        for wanted, found in pairs
    )
