"""Give every object an id that it keeps: ByteTrack (Zhang et al., ECCV 2022), in numpy, by times rather than by frames."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from edgecv._internal.extras import require
from edgecv.errors import ConfigError
from edgecv.pipelines.steps.options import Options, checked
from edgecv.pipelines.steps.per_source import PerSource
from edgecv.pipelines.steps.track.association import Floats, Indices, assign, grown, overlaps
from edgecv.pipelines.steps.track.kalman import Motion, to_boxes, to_measured
from edgecv.results import BoolArray, Detections, IntArray, Result

UNCONFIRMED = -1
_NEW, _TRACKED, _LOST = 0, 1, 2
# The filter's constants are per frame. A frame is 50 ms here, whatever the camera delivers: on vtest.avi and on made-up crowds at
# 10 and 30 frames per second this gave the fewest ids too many, and a rate learnt from the frames lost objects whenever it changed.
_FRAME_NS = 50_000_000
_LONGEST_GAP = 30.0  # frames; a motion is not drawn out further
_MOST_TRACKS = 1000
# At few frames per second, people walk out of their own boxes from one frame to the next. So boxes are compared as if they were
# larger on each side, by 1.5 of their size for each second beyond a tenth: nothing at 10 frames per second and more, 0.3 at 3.3.
_QUICK_S, _GROWTH_PER_S, _MOST_GROWTH = 0.1, 1.5, 0.5
# The limits of the second and third match and of doubles are those of the authors' code.
_LOW_MATCH, _NEW_MATCH, _DOUBLE = 0.5, 0.7, 0.85
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Track(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``type = "track"``: follow objects; each source has a tracker of its own. Needs ``pip install 'edgecv[track]'``.

    Every detection stays. One that belongs to no confirmed object gets the id -1, which nothing counts.

    Attributes:
        high: Detections from this confidence on are matched first, and can begin an object.
        low: Detections between this confidence and ``high`` only carry on objects that were seen in the frame before. The
            model must let them through: set its ``confidence`` as low.
        start: Confidence from which a detection that fits nothing begins an object; at least ``high``.
        match: Objects and detections match up to this cost, ``1 - overlap × confidence``, 0 to 1; higher is more lenient.
        lost_s: An object that is not seen for longer loses its id, seconds.
        confirm: An object is confirmed once it was seen in so many frames running.
        same_class: Match only detections of the class the object had when it was last seen.
    """

    gives_ids: ClassVar[bool] = True
    gives_kinds: ClassVar[tuple[str, ...] | None] = ()

    high: _Share = 0.25
    low: _Share = 0.1
    start: _Share = 0.25
    match: _Share = 0.8
    lost_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 2.0
    confirm: Annotated[int, msgspec.Meta(ge=1, le=100)] = 2
    same_class: bool = False

    @property
    def keeps_ids_s(self) -> float:
        """How long an object may be out of sight and still have its id when it comes back, seconds."""
        return self.lost_s

    def build(self, labels: tuple[str, ...] = ()) -> PerSource:  # noqa: ARG002 - the same for all steps
        """The step: a tracker for each source.

        Raises:
            ConfigError: the limits contradict each other.
            MissingDependency: scipy is not installed.
        """
        options = checked(self)
        if not options.low <= options.high <= options.start:
            raise ConfigError(
                f"low {options.low}, high {options.high} and start {options.start} must rise in this order.",
                "For example low = 0.1, high = 0.25, start = 0.25.",
            )
        require("scipy.optimize", "track")  # now, not at the first frame
        return PerSource(lambda _: ByteTracker(options))


@dataclass(slots=True, kw_only=True, eq=False)
class _Objects:
    """``T`` objects, a row each."""

    motion: Motion
    state: IntArray
    hits: IntArray  # frames in which it was seen
    tracker_id: IntArray  # -1 before it is confirmed
    class_id: IntArray
    start_ns: IntArray  # monotonic
    seen_ns: IntArray

    @classmethod
    def begin(cls, measured: Floats, class_id: IntArray, now_ns: int) -> _Objects:
        count = len(measured)
        return cls(
            motion=Motion.start(measured),
            state=np.full(count, _NEW),
            hits=np.zeros(count, np.int64),
            tracker_id=np.full(count, UNCONFIRMED),
            class_id=class_id.copy(),
            start_ns=np.full(count, now_ns),
            seen_ns=np.full(count, now_ns),
        )

    def take(self, rows: IntArray) -> _Objects:
        columns = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "motion"}
        return _Objects(motion=self.motion.take(rows), **columns)

    def joined(self, other: _Objects) -> _Objects:
        names = [field.name for field in fields(self) if field.name != "motion"]
        columns = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in names}
        return _Objects(motion=self.motion.joined(other.motion), **columns)


def _nobody() -> _Objects:
    return _Objects.begin(np.zeros((0, 4)), np.zeros(0, np.int64), 0)


class ByteTracker:
    """Step that sets ``tracker_id``: one number per object from 1 on, -1 for what is not confirmed.

    Sure detections are matched with all objects where their motion puts them, unsure ones with those that are left; what is
    left of the sure ones begins objects. The times are those of the frames, so that dropped frames only widen a step.
    """

    def __init__(self, options: Track) -> None:
        self._options = options
        self._lost_ns = round(options.lost_s * 1e9)
        self._objects = _nobody()
        self._size_hw: tuple[int, ...] = ()
        self._next_id = 1
        self._last_ns: int | None = None
        self._growth = 0.0  # of boxes that are compared, on each side

    def __call__(self, result: Result) -> Result:
        """The result with ids. Raises ``ConfigError``: the model gives no detections."""
        if result.detections is None:
            raise ConfigError("The step 'track' follows detections, and this model gives none.", "Use a detector.")
        size_hw = result.frame.image.shape[:2]
        if size_hw != self._size_hw:  # the same place has other pixels now
            if self._size_hw:
                down, across = size_hw[0] / self._size_hw[0], size_hw[1] / self._size_hw[1]
                self._objects.motion = self._objects.motion.scaled(across, down)
            self._size_hw = size_hw
        tracker_id = self.follow(result.detections, result.frame.scene_ns)
        return replace(result, detections=replace(result.detections, tracker_id=tracker_id))

    def adopt(self, before: object) -> bool:
        """Go on with the objects and ids of another tracker."""
        if not isinstance(before, ByteTracker):
            return False
        self._objects = before._objects.take(np.arange(len(before._objects.state)))
        self._size_hw, self._next_id, self._last_ns = before._size_hw, before._next_id, before._last_ns
        return True

    def follow(self, found: Detections, now_ns: int) -> IntArray:
        """The ids ``(N,)`` of the detections of a frame taken at ``now_ns``, monotonic nanoseconds."""
        self._move(now_ns)
        sure, unsure = self._split(found)
        owner = np.full(len(found), -1)  # the row of the object that each detection belongs to
        known = np.flatnonzero(self._objects.state != _NEW)
        rest, sure = self._match(known, sure, found, owner, self._options.match)
        seen_before = rest[self._objects.state[rest] == _TRACKED]
        missed, _ = self._match(seen_before, unsure, found, owner, _LOW_MATCH, weigh=False)
        fresh, sure = self._match(np.flatnonzero(self._objects.state == _NEW), sure, found, owner, _NEW_MATCH)
        self._note(owner, found, now_ns)
        self._objects.state[missed] = _LOST
        self._begin(sure, found, owner, now_ns)
        ids = np.append(self._objects.tracker_id, UNCONFIRMED)  # the last for detections without an object: owner -1
        ids[self._drop(fresh, now_ns)] = UNCONFIRMED
        return ids[owner]

    def _move(self, now_ns: int) -> None:
        """Predict where everything is now; what is out of sight keeps its height."""
        elapsed_ns = 0 if self._last_ns is None else max(0, now_ns - self._last_ns)
        self._last_ns = now_ns
        frames = min(elapsed_ns / _FRAME_NS, _LONGEST_GAP)
        self._growth = min(max(0.0, elapsed_ns / 1e9 - _QUICK_S) * _GROWTH_PER_S, _MOST_GROWTH)
        objects = self._objects
        objects.motion.velocity[objects.state == _LOST, 3] = 0.0
        # What was seen once has no motion yet; like the authors' code, this waits for the second time.
        objects.motion.predict(np.where(objects.hits[:, None] > 1, frames, 0.0))

    def _split(self, found: Detections) -> tuple[Indices, Indices]:
        has_area = (found.xyxy[:, 2:] > found.xyxy[:, :2]).all(axis=1) & np.isfinite(found.xyxy).all(axis=1)
        sure = found.confidence >= np.float32(self._options.high)
        unsure = ~sure & (found.confidence > np.float32(self._options.low))
        return np.flatnonzero(has_area & sure), np.flatnonzero(has_area & unsure)

    def _match(
        self, rows: Indices, seen: Indices, found: Detections, owner: IntArray, limit: float, weigh: bool = True
    ) -> tuple[Indices, Indices]:
        """Give detections to objects; what is left of both."""
        if not len(rows) or not len(seen):
            return rows, seen
        boxes = to_boxes(self._objects.motion.at[rows]), found.xyxy[seen].astype(np.float64)
        overlap = overlaps(*(grown(one, self._growth) for one in boxes))
        cost = 1 - overlap * (found.confidence[seen].astype(np.float64) if weigh else 1.0)
        if self._options.same_class:
            cost[self._objects.class_id[rows, None] != found.class_id[None, seen]] = 2.0
        at_row, at_seen = assign(cost, limit)
        owner[seen[at_seen]] = rows[at_row]
        return np.delete(rows, at_row), np.delete(seen, at_seen)

    def _note(self, owner: IntArray, found: Detections, now_ns: int) -> None:
        seen = np.flatnonzero(owner >= 0)
        rows, objects = owner[seen], self._objects
        objects.motion.update(rows, to_measured(found.xyxy[seen]))
        objects.class_id[rows] = found.class_id[seen]
        objects.seen_ns[rows] = now_ns
        objects.hits[rows] += 1
        objects.state[rows] = np.where(objects.state[rows] == _LOST, _TRACKED, objects.state[rows])
        self._confirm(rows)

    def _confirm(self, rows: Indices) -> None:
        """The objects among these that were seen often enough get their ids."""
        objects = self._objects
        ready = rows[(objects.state[rows] == _NEW) & (objects.hits[rows] >= self._options.confirm)]
        objects.state[ready] = _TRACKED
        objects.tracker_id[ready] = np.arange(self._next_id, self._next_id + len(ready))
        self._next_id += len(ready)

    def _begin(self, seen: Indices, found: Detections, owner: IntArray, now_ns: int) -> None:
        seen = seen[found.confidence[seen] >= np.float32(self._options.start)]
        first = len(self._objects.state)
        self._objects = self._objects.joined(
            _Objects.begin(to_measured(found.xyxy[seen]), found.class_id[seen].astype(np.int64), now_ns)
        )
        rows = np.arange(first, first + len(seen))
        owner[seen] = rows
        self._objects.hits[rows] = 1
        self._confirm(rows)

    def _drop(self, fresh: Indices, now_ns: int) -> Indices:
        """Forget new objects that were missed, lost ones after their time, doubles, and the oldest lost ones over the limit.

        Returns the rows they had.
        """
        objects = self._objects
        keep = np.ones(len(objects.state), np.bool_)
        keep[fresh] = False
        keep &= (objects.state != _LOST) | (now_ns - objects.seen_ns <= self._lost_ns)
        keep &= ~self._doubles(keep)
        lost = np.flatnonzero(keep & (objects.state == _LOST))
        too_many = max(0, int(keep.sum()) - _MOST_TRACKS)
        keep[lost[np.argsort(objects.seen_ns[lost], kind="stable")[:too_many]]] = False
        if not keep.all():
            self._objects = objects.take(np.flatnonzero(keep))
        return np.flatnonzero(~keep)

    def _doubles(self, kept: BoolArray) -> BoolArray:
        """Of an object in sight and a lost one in the same place, the one that was followed for a shorter time."""
        objects = self._objects
        seen = np.flatnonzero(kept & (objects.state != _LOST))
        lost = np.flatnonzero(kept & (objects.state == _LOST))
        doubles = np.zeros(len(kept), np.bool_)
        if not len(seen) or not len(lost):
            return doubles
        boxes = to_boxes(objects.motion.at)
        pairs = np.argwhere(overlaps(boxes[seen], boxes[lost]) > _DOUBLE)
        first, second = seen[pairs[:, 0]], lost[pairs[:, 1]]
        age = objects.seen_ns - objects.start_ns
        longer = age[first] > age[second]
        doubles[second[longer]] = True
        doubles[first[~longer]] = True
        return doubles
