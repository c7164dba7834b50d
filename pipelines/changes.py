"""What of a pipeline may be changed while it runs, besides its sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from edgecv.errors import ConfigError
from edgecv.model import Model
from edgecv.pipelines.arguments import check_replacement
from edgecv.pipelines.fitting_model import FittingModel
from edgecv.pipelines.loop.frame_loop import FrameLoop
from edgecv.pipelines.loop.inference import Inference
from edgecv.pipelines.loop.step_chain import check_ids, check_sources, check_steps
from edgecv.pipelines.steps.exchange import StepLike


class Changes:
    """The part of ``Pipeline`` that changes its pace, model and steps between two frames; from any thread."""

    _inference: Inference
    _loop: FrameLoop
    _closed: bool

    @property
    def pace(self) -> float | None:
        """Most frames per second through the model; ``None``: as many as there are. May be set from any thread."""
        return self._loop.pace.fps

    @pace.setter
    def pace(self, fps: float | None) -> None:
        self._loop.pace.fps = fps

    def replace_model(self, model: Model | FittingModel) -> None:
        """Go on with another model from the next frame on; steps and counters go on, and no frame is lost.

        Frames that are prepared or computed already end with the model before, which must stay open until then: as long as
        the pipeline runs. Neither is closed by it. May be called from any thread.

        Raises:
            ConfigError: its task or its classes are others, or a recording is replayed without a model.
        """
        check_replacement(self._inference.model, model)
        self._inference.model = model

    def replace_steps(self, steps: Sequence[StepLike], *, renamed: Mapping[str, str] = MappingProxyType({})) -> None:
        """Go on with other steps from the next frame on; no frame is lost. May be called from any thread.

        A step that is given again, or with equal options, goes on as it is. One of the same type and name with other options
        takes over what the one before remembers and counted, where it can: tracks, objects, totals and the state file. An object
        over which a line or an area is moved does not count for that. What is not given any more is closed, and its counts are
        gone. When this returns, the next frame meets the new steps.

        Args:
            steps: As in the constructor.
            renamed: New names by old ones, of steps that go on under another name.

        Raises:
            ConfigError: a step does not fit, a tracker is exchanged whose objects others know, a step calls this, or the
                pipeline has ended. Then nothing is changed, as after any other error.
        """
        self._check_open()
        steps = tuple(steps)
        check_steps(steps)
        check_ids(steps)
        check_sources(steps, [reader.name for reader in self._loop.scheduler.readers])
        self._loop.chain.replace(steps, self._inference.model.labels, renamed)

    def _check_open(self) -> None:
        if self._closed:
            raise ConfigError("This pipeline has ended.", "Make a new one for every run.")
