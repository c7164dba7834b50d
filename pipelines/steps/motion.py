"""Skip frames in which nothing moves."""

from __future__ import annotations

from math import exp
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from edgecv._internal.extras import opencv
from edgecv.pipelines.steps.options import checked
from edgecv.pipelines.steps.per_source import PerSource
from edgecv.results import Frame, Image

_Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]
_SIDE_PX = (
    128  # longer side of the small image: averages the noise of a sensor away, leaves a person at 30 m some pixels
)
_ROWS = 3  # rows of the frame in each row of the small image
_NEW_SCENE = 0.6  # share of changed pixels from which the light or the view is another, and the background starts anew


class Motion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``type = "motion"``, a gate: run the model only while something moves. Needs OpenCV.

    Skipped frames give no result: trackers and counters see a jump in time. ``lost_s`` and ``forget_s`` of these should be
    longer than ``refresh_s``, lest what stands still gets a new id at each look.

    Attributes:
        share: Something moves when more than this share of the image changes, 0 to 1.
        difference: A pixel changed when its grey level (0 to 255) differs from the background by more than this.
        hold_s: Go on for so long after the last motion, seconds.
        refresh_s: Look at a still scene every so often, seconds; 0 for never.
        adapt_s: What stays becomes background in about this time, seconds.
    """

    share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0015
    difference: Annotated[float, msgspec.Meta(gt=0, le=255)] = 12.0
    hold_s: _Seconds = 2.0
    refresh_s: _Seconds = 5.0
    adapt_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 10.0

    def build(self) -> PerSource:
        """The gate: a background for each source.

        Raises:
            ConfigError: an option is out of its range.
            MissingDependency: OpenCV is not installed.
        """
        options = checked(self)
        opencv()  # now, not at the first frame
        return PerSource(lambda _: MotionGate(options))


class MotionGate:
    """Gate that opens when a frame differs from a background that slowly follows the scene.

    A pixel changed when it differs from the background and from the background made as bright as the frame, by the median
    of their ratio: light that flickers, or a camera that corrects its exposure, changes all pixels alike, but for those
    that are white already.
    """

    def __init__(self, options: Motion) -> None:
        self._options = options
        self._hold_ns, self._refresh_ns = round(options.hold_s * 1e9), round(options.refresh_s * 1e9)
        self._background: npt.NDArray[np.float32] | None = None
        self._moved_ns = self._opened_ns = self._last_ns = 0

    def __call__(self, frame: Frame) -> bool:
        """Whether the frame is worth a look."""
        now_ns = frame.scene_ns
        if self._moves(_small(frame.image), now_ns):
            self._moved_ns = now_ns
        held = now_ns - self._moved_ns <= self._hold_ns
        due = bool(self._refresh_ns) and now_ns - self._opened_ns >= self._refresh_ns
        if held or due:
            self._opened_ns = now_ns
        return held or due

    def _moves(self, image: npt.NDArray[np.float32], now_ns: int) -> bool:
        if self._background is None or self._background.shape != image.shape:
            self._background, self._last_ns = image, now_ns
            return True
        gain = np.float32(np.median((image[::2, ::2] + 1) / (self._background[::2, ::2] + 1)))
        differences = np.abs(image - self._background), np.abs(image - self._background * gain)
        changed = np.count_nonzero(np.minimum(*differences) > self._options.difference) / image.size
        elapsed_s, self._last_ns = max(0, now_ns - self._last_ns) / 1e9, now_ns
        follow = 1.0 if changed > _NEW_SCENE else 1 - exp(-elapsed_s / self._options.adapt_s)
        self._background += np.float32(follow) * (image - self._background)
        return bool(changed > self._options.share)


def _small(image: Image) -> npt.NDArray[np.float32]:
    cv2 = opencv()
    height, width = image.shape[:2]
    scale = max(1.0, max(height, width) / _SIDE_PX)
    size_wh = max(1, round(width / scale)), max(1, round(height / scale))
    rows = image[:: max(1, int(scale) // _ROWS)]  # averaging all of them would cost more than the rest
    small = cv2.resize(rows, size_wh, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.float32)
