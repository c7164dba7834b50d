"""Whether the held-out images can judge INT8, asked of the source itself before anything is exported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgecv._internal.progress import Progress
from edgecv.converters.judge import BOX_TASKS
from edgecv.converters.source import Part, SourceModel
from edgecv.media.images import read_image
from edgecv.model import Model
from edgecv.protocols import Array, Tensors
from edgecv.quantize.calibration.calibration_set import MOST_HELD_OUT, CalibrationSet
from edgecv.quantize.gate.accuracy_gate import MINIMUM_TEACHER_BOXES, check_teacher
from edgecv.specs import TensorSpec


class _SourceSession:
    """The source as a session: what runs before there is an export."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self.inputs: tuple[TensorSpec, ...] = part.inputs
        self.outputs: tuple[TensorSpec, ...] = part.outputs
        self.providers: tuple[str, ...] = ("source",)

    def run(self, feeds: Tensors) -> dict[str, Array]:
        return self._part.reference(feeds)

    def close(self) -> None:
        """Does nothing: there is nothing to release."""


def with_enough_objects(source: SourceModel, images: CalibrationSet, progress: Progress) -> CalibrationSet:
    """The images, split so that enough objects are held out: up to half of them, else there is a ``CalibrationError``."""
    if source.spec.decode.task not in BOX_TASKS or not source.trained:
        return images
    if _objects(source, images.held_out, progress) >= MINIMUM_TEACHER_BOXES or images.split_at is None:
        return images
    more = images.split_at(MOST_HELD_OUT)
    check_teacher(_objects(source, more.held_out, progress), len(more.held_out))
    return more


def _objects(source: SourceModel, paths: Sequence[Path], progress: Progress) -> int:
    """Objects that the source finds at its own confidence; no more are counted than are needed."""
    step, found = "Counting objects in the held-out images", 0
    with Model(source.name, source.spec, _SourceSession(source.parts[0])) as model:
        for done in range(0, len(paths), model.batch):
            progress(step, done, len(paths))
            images = [read_image(path) for path in paths[done : done + model.batch]]
            found += sum(len(answer) for answer in model.many(images))
            if found >= MINIMUM_TEACHER_BOXES:
                break
    progress(step, len(paths), len(paths))
    return found
