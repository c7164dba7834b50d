"""A model file that says nothing about itself, such as another tool's export: its session can be timed all the same."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from edgecv.choosing import choose_for_file, runtime_of
from edgecv.errors import ConfigError
from edgecv.protocols import Array, Session, Tensors
from edgecv.results import Image
from edgecv.specs import PreprocessSpec, RuntimeOptions, TensorSpec
from edgecv.vision.letterbox import prepare

_OPEN_SIDE_PX = 640  # for a side that the file leaves open


class BareFile:
    """A session with an image for its image input, and noise by seed for every other input; what comes out is not read.

    Attributes:
        name: Name of the file.
        session: The runtime session.
    """

    def __init__(self, path: Path, options: RuntimeOptions) -> None:
        """Load the file.

        Raises:
            ConfigError: no runtime runs it, or a size that it leaves open cannot be guessed.
            SessionError: the runtime cannot load it.
        """
        self.name = path.stem
        self.session: Session = runtime_of(choose_for_file(path, options))(path, options)
        self._inputs = tuple(_closed(spec) for spec in self.session.inputs)
        self._rng = np.random.default_rng(0)
        self._noise = {spec.name: self._random(spec) for spec in self._inputs if not is_image(spec)}

    def prepare(self, image: Image) -> tuple[dict[str, Array], None]:
        """The image, resized and laid out as the file wants it, beside the noise."""
        return {**self._noise, **{spec.name: _tensor(image, spec) for spec in self._inputs if is_image(spec)}}, None

    def infer(self, feeds: Tensors) -> dict[str, Array]:
        """Run the network and return its raw outputs by name."""
        return dict(self.session.run(feeds))

    def decode(self, outputs: Tensors, transform: None) -> None:
        """Nothing: nobody knows what the outputs mean."""

    def close(self) -> None:
        """Free the session; a second call does nothing."""
        self.session.close()

    def _random(self, spec: TensorSpec) -> Array:
        dtype = np.dtype(spec.dtype)
        if dtype.kind in "iub":
            return self._rng.integers(0, 2 if dtype.kind == "b" else 100, spec.shape).astype(dtype)
        return self._rng.random(spec.shape).astype(dtype)


def is_image(spec: TensorSpec) -> bool:
    """Whether an input takes an image of three channels: four axes, the second or the last of them 3."""
    return len(spec.shape) == 4 and 3 in (spec.shape[1], spec.shape[3])


def _tensor(image: Image, spec: TensorSpec) -> Array:
    is_planar = spec.layout == "NCHW" or (not spec.layout and spec.shape[1] == 3)
    height, width = spec.shape[2:] if is_planar else spec.shape[1:3]
    laid_out = msgspec.structs.replace(spec, role="image", layout="NCHW" if is_planar else "NHWC")
    tensor, _ = prepare(image, PreprocessSpec(size_wh=(width, height), resize="stretch"), laid_out)
    return np.repeat(tensor, spec.shape[0], axis=0) if spec.shape[0] > 1 else tensor


def _closed(spec: TensorSpec) -> TensorSpec:
    """The input with a number for every size: one image, and 640 pixels for a side of it."""
    if min(spec.shape, default=1) >= 1:
        return spec
    shape = (max(spec.shape[0], 1), *(_side(spec, axis) for axis in range(1, len(spec.shape))))
    return msgspec.structs.replace(spec, shape=shape)


def _side(spec: TensorSpec, axis: int) -> int:
    if spec.shape[axis] >= 1:
        return spec.shape[axis]
    if is_image(spec):
        return _OPEN_SIDE_PX
    raise ConfigError(
        f"The input {spec.name} has the shape {list(spec.shape)}: a size is left open, and it is no image.",
        "Export the model with fixed sizes.",
    )
