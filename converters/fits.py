"""``--fit``: the same model once more, with an input whose shape is that of a camera's image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import lcm

from edgecv.converters.judge import BOX_TASKS
from edgecv.converters.source import SIZE_STEP, SourceModel, SourceOptions
from edgecv.errors import ConfigError
from edgecv.vision.input_shapes import Size, fitted_size, read_fit


def read_fits(texts: Sequence[str]) -> tuple[Size, ...]:
    """Each shape that was asked for, once; ``ConfigError`` for what is none."""
    if isinstance(texts, str):
        raise ConfigError("fit= takes several shapes.", f"Write fit=({texts!r},).")
    return tuple(dict.fromkeys(read_fit(text) for text in texts))


def fitted_sources(
    source: SourceModel,
    fits: Sequence[Size],
    options: SourceOptions,
    reopen: Callable[[SourceOptions], SourceModel],
) -> tuple[SourceModel, ...]:
    """The source once for each shape whose size is not there yet.

    Args:
        source: The source with its own input size.
        fits: Shapes of images, such as (16, 9).
        options: What it was opened with.
        reopen: Opens it with other options.

    Raises:
        ConfigError: its images are not letterboxed, or its input has one size for ever.
    """
    if fits and (source.spec.decode.task not in BOX_TASKS or source.spec.preprocess.resize != "letterbox"):
        raise ConfigError(
            f"--fit is for YOLO models that find objects ({', '.join(BOX_TASKS)}); {source.name} is a "
            f"'{source.spec.decode.task}' model, whose input has the shape that it was trained with.",
            "Leave --fit out.",
        )
    own = source.spec.preprocess.size_wh
    sizes = dict.fromkeys(fitted_size(fit, max(own), _step(source)) for fit in fits)
    return tuple(_reopened(size, options, reopen) for size in sizes if size != own)


def _reopened(size: Size, options: SourceOptions, reopen: Callable[[SourceOptions], SourceModel]) -> SourceModel:
    try:
        return reopen(replace(options, size_wh=size))
    except ConfigError as error:  # a graph with fixed axes
        hint = "Leave --fit out, or convert the checkpoint (.pt), or export the .onnx with open axes."
        raise ConfigError(f"--fit needs an input of {size[0]}x{size[1]}: {error.message}", hint) from error


def _step(source: SourceModel) -> int:
    """What both sides of the input must be multiples of: every stride of the head."""
    strides = (spec.role.rpartition("/")[2] for part in source.parts for spec in part.outputs)
    return lcm(SIZE_STEP, *(int(stride) for stride in strides if stride.isdecimal()))
