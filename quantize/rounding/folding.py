"""Fold the batch norms of a torch module into the convolutions before them, so that weights are what the exports hold."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgecv._internal.extras import require
from edgecv.protocols import Array

_MOST = 1e-3  # of the largest output: what the order of operations in float32 may change


def folded(module: Any, image: Array) -> Any:
    """A copy of ``module`` without the batch norms that follow a convolution directly; ``module`` itself where there is none.

    Which norm follows which convolution shows when one ``image`` is run. A norm stays where without it something else is computed,
    since the output of its convolution is used elsewhere too.
    """
    torch = require("torch", "convert")
    pairs = list(_pairs(torch, module, image))
    if not pairs:
        return module
    made = _without(torch, module, pairs)
    if _is_close(torch, module, made, image):
        return made
    made = module
    for pair in pairs:
        tried = _without(torch, made, [pair])
        made = tried if _is_close(torch, module, tried, image) else made
    return made


def _without(torch: Any, module: Any, pairs: Sequence[tuple[str, str]]) -> Any:
    """A copy of ``module`` without these norms."""
    made = copy.deepcopy(module)
    for convolution, norm in pairs:
        fused = torch.nn.utils.fusion.fuse_conv_bn_eval(made.get_submodule(convolution), made.get_submodule(norm))
        _replace(made, convolution, fused.requires_grad_(False))
        _replace(made, norm, torch.nn.Identity())
    return made


def _pairs(torch: Any, module: Any, image: Array) -> Iterator[tuple[str, str]]:
    """Names of convolutions and of the batch norms that take what they make; each ran once."""
    made: list[tuple[str, Any, int]] = []  # outputs are kept: the place of one that is freed is used again
    taken: list[tuple[str, Any, int]] = []
    hooks = []
    for name, layer in module.named_modules():
        if isinstance(layer, torch.nn.Conv2d) and _is_plain(layer):
            hooks.append(layer.register_forward_hook(lambda _, __, y, name=name: made.append((name, y, y._version))))
        elif isinstance(layer, torch.nn.BatchNorm2d) and not layer.training and layer.running_mean is not None:
            hooks.append(
                layer.register_forward_pre_hook(lambda _, x, name=name: taken.append((name, x[0], x[0]._version)))
            )
    try:
        _run(torch, module, image)
    finally:
        for hook in hooks:
            hook.remove()
    # The version counts changes in place, such as a ReLU between the two.
    by_place = {(id(output), version): name for name, output, version in made}
    once = {name for name, count in Counter(name for name, *_ in (*made, *taken)).items() if count == 1}
    for norm, tensor, version in taken:
        convolution = by_place.get((id(tensor), version))
        if convolution in once and norm in once:
            yield str(convolution), norm


def _is_plain(layer: Any) -> bool:
    """Whether a convolution's weights are its own, and not computed in each run."""
    return not layer.training and layer._parameters.get("weight") is not None


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
