"""What several views of one image found becomes one list, in which each object stands once.

A *view* is the whole image or one tile. A box is *cut* where it ends at a border of its tile that lies inside the image: the
object goes on there, and another view shows more of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgecv.detections import BoolArray, FloatArray, IntArray
from edgecv.tiles.grid import Window
from edgecv.vision.nms import iou_matrix, nms

_SAME = 0.5  # overlap from which boxes of two views may be one object
_INSIDE = 0.8  # of a cut box's area inside a box that is not cut: it shows a part of that object
_AS_SURE = 0.3  # of a cut box's confidence, which that other box must have
_EDGE = 0.01  # of a tile's side: a box that ends so near to a border is cut by it
_VIEWS_OF_ONE = (
    5  # boxes that are looked at for each object that may be given: four tiles may meet in it, and the whole image
)
_LEAST_EDGE = 2.0  # pixels, for small tiles


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """``N`` boxes of all views.

    Attributes:
        xyxy: ``(N, 4)`` float32 pixels of the image.
        confidence: ``(N,)`` float32.
        class_id: ``(N,)`` int64.
        view: ``(N,)`` int64, index into ``windows``.
        windows: Where each view lies; that of the whole image first.
    """

    xyxy: FloatArray
    confidence: FloatArray
    class_id: IntArray
    view: IntArray
    windows: Sequence[Window]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Merged:
    """One object: its box, and the boxes that show it.

    Attributes:
        xyxy: ``(4,)`` float32 pixels of the image.
        surest: The member with the highest confidence, which is that of the object.
        members: The best of them, which stands for the object; or all the parts of an object that no view shows whole.
    """

    xyxy: FloatArray
    surest: int
    members: tuple[int, ...]


def merge(seen: Seen, iou: float, most: int) -> list[Merged]:
    """Each object once, the surest first, at most ``most``.

    Boxes of two views are one object where each is the best of its view for the other. So two people who stand close stay two,
    as in the view that told them apart. What is left goes through the suppression that the model's own boxes went through, with
    its ``iou``. Of very many boxes only the surest are looked at: time and memory grow with the square of their number.
    """
    found: list[Merged] = []
    surest_rows = np.sort(np.argsort(-seen.confidence, kind="stable")[: most * _VIEWS_OF_ONE])
    for class_id in np.unique(seen.class_id[surest_rows]):
        found += _of_one_class(seen, surest_rows[seen.class_id[surest_rows] == class_id])
    if not found:
        return []
    surest = np.array([one.surest for one in found])
    boxes = np.stack([one.xyxy for one in found])
    return [found[at] for at in nms(boxes, seen.confidence[surest], seen.class_id[surest], iou, most)]


def _of_one_class(everything: Seen, rows: IntArray) -> list[Merged]:
    """The objects that the boxes in these rows show."""
    seen = Seen(
        xyxy=everything.xyxy[rows],
        confidence=everything.confidence[rows],
        class_id=everything.class_id[rows],
        view=everything.view[rows],
        windows=everything.windows,
    )
    is_cut = _is_cut(seen)
    same = _partners(seen, is_cut)
    taken = _parts(seen, is_cut, same)
    partners: dict[int, list[int]] = {}
    for one, other in np.argwhere(same).tolist():
        partners.setdefault(one, []).append(other)
    found: list[Merged] = []
    for at in np.argsort(-seen.confidence, kind="stable"):
        if not taken[at]:
            group = _group(int(at), partners, taken, seen.view)
            taken[group] = True
            members = sorted(group, key=lambda one: -float(seen.confidence[one]))
            members = [one for one in members if not is_cut[one]][:1] or members
            places = tuple(int(rows[one]) for one in members)
            found.append(Merged(xyxy=_around(seen.xyxy[members]), surest=int(rows[at]), members=places))
    return found


def _around(xyxy: FloatArray) -> FloatArray:
    return np.concatenate([xyxy[:, :2].min(axis=0), xyxy[:, 2:].max(axis=0)])


def _is_cut(seen: Seen) -> BoolArray:
    """``(N,)``: whether a side of each box ends at a border of its tile inside the image."""
    windows = np.array(seen.windows, np.float32)
    own = windows[seen.view]
    sides = own[:, 2:] - own[:, :2]
    near = np.maximum(sides * _EDGE, _LEAST_EDGE)[:, [0, 1, 0, 1]]
    cut = (np.abs(seen.xyxy - own) <= near) & (own != windows[0])
    found: BoolArray = cut.any(axis=1)
    return found


def _group(at: int, partners: Mapping[int, Sequence[int]], taken: BoolArray, view: IntArray) -> list[int]:
    """A box and those that show the same object: one of each view, from neighbour to neighbour."""
    group, views, waiting = [at], {int(view[at])}, [at]
    while waiting:
        for other in partners.get(waiting.pop(), ()):
            if not taken[other] and int(view[other]) not in views:
                group.append(other)
                views.add(int(view[other]))
                waiting.append(other)
    return group


def _partners(seen: Seen, is_cut: BoolArray) -> BoolArray:
    """``(N, N)``: pairs of two views that show the same object; each is the best of its view for the other.

    The best is the one with the most overlap times confidence: a stray box that fits a little better does not come between.
    """
    overlap = _overlaps(seen, is_cut)
    worth = overlap * seen.confidence[None, :]
    is_best = np.zeros(overlap.shape, np.bool_)
    rows = np.arange(len(overlap))
    for view in range(len(seen.windows)):
        members = np.flatnonzero(seen.view == view)
        if len(members):
            is_best[rows, members[worth[:, members].argmax(axis=1)]] = True
    return (overlap > 0) & is_best & is_best.T


def _overlaps(seen: Seen, is_cut: BoolArray) -> FloatArray:
    """``(N, N)`` overlap of boxes in two views, from ``_SAME`` on; else 0.

    Where one of two boxes is cut, only what lies in both views is compared: beyond that, one of them could see nothing.
    """
    rivals = seen.view[:, None] != seen.view[None, :]
    found = _common_overlap(seen.xyxy, np.array(seen.windows, np.float32)[seen.view])
    whole = np.flatnonzero(~is_cut)
    found[np.ix_(whole, whole)] = iou_matrix(seen.xyxy[whole], seen.xyxy[whole])
    return np.where(rivals & (found >= _SAME), found, np.float32(0))


def _common_overlap(xyxy: FloatArray, windows: FloatArray) -> FloatArray:
    """``(N, N)``: intersection over union of each two boxes, inside the part of the image that both of their views show."""
    corner = np.maximum(xyxy[:, None, :2], windows[None, :, :2])
    far = np.minimum(xyxy[:, None, 2:], windows[None, :, 2:])
    area = (far - corner).clip(0).prod(axis=2)  # of box i inside the view of box j; the box lies in its own
    both = np.minimum(far, far.transpose(1, 0, 2)) - np.maximum(corner, corner.transpose(1, 0, 2))
    common = both.clip(0).prod(axis=2)
    union = area + area.T - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def _parts(seen: Seen, is_cut: BoolArray, same: BoolArray) -> BoolArray:
    """``(N,)``: cut boxes without a partner that show a part of what another view shows whole."""
    found = np.zeros(len(is_cut), np.bool_)
    lone, whole = np.flatnonzero(is_cut & ~same.any(axis=1)), np.flatnonzero(~is_cut)
    if not len(lone) or not len(whole):
        return found
    sure = seen.confidence[whole] >= _AS_SURE * seen.confidence[lone, None]
    may = sure & (seen.view[lone, None] != seen.view[whole])
    cut, rest = seen.xyxy[lone, None], seen.xyxy[whole]
    inside = (np.minimum(cut[..., 2:], rest[:, 2:]) - np.maximum(cut[..., :2], rest[:, :2])).clip(0).prod(axis=2)
    area = (cut[..., 2:] - cut[..., :2]).prod(axis=2)
    found[lone] = (may & (inside > _INSIDE * area)).any(axis=1)
    return found
