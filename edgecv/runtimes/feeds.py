"""What every runtime checks before it runs."""

from __future__ import annotations

from edgecv.errors import SpecMismatch
from edgecv.protocols import Tensors
from edgecv.specs import TensorSpec


def check_feeds(feeds: Tensors, inputs: tuple[TensorSpec, ...]) -> None:
    """Raise ``SpecMismatch`` unless ``feeds`` are exactly the inputs, each in its shape and dtype."""
    if feeds.keys() != {spec.name for spec in inputs}:
        raise SpecMismatch(f"The model takes {[spec.name for spec in inputs]}, not {list(feeds)}.")
    for spec in inputs:
        value = feeds[spec.name]
        if value.dtype.name != spec.dtype or not _fits(value.shape, spec.shape):
            raise SpecMismatch(
                f"Input '{spec.name}' must be {spec.shape} of {spec.dtype}, not {value.shape} of {value.dtype.name}."
            )


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(size in (-1, given) for size, given in zip(wanted, shape, strict=True))
