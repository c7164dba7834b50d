"""``Tiles``: how an image is cut into overlapping parts."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgecv._internal.strict import check_number
from edgecv.errors import ConfigError

Window = tuple[int, int, int, int]  # left, top, right, bottom in pixels of the image; right and bottom lie outside

OVERLAP = 0.2
_MOST_OVERLAP = 0.5
_MOST_SIDE = 8
_MOST_TILES = 16  # each costs a run of the model
_SMALLEST = 32  # pixels of a tile's side: less shows nothing, and such an image is looked at whole
_GRID = re.compile(r"0*([0-9]{1,4})x0*([0-9]{1,4})", re.ASCII)
_HINT = "Write how many stand side by side and above each other, such as 2x2 or 3x2."


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """A grid of equal tiles that overlap; the whole image is always looked at as well.

    Attributes:
        columns: Tiles side by side.
        rows: Tiles above each other.
        overlap: The part of a tile's side that it shares with its neighbour.
    """

    columns: int
    rows: int
    overlap: float = OVERLAP

    @classmethod
    def read(cls, text: str, overlap: float = OVERLAP) -> Tiles:
        """``3x2`` as three tiles side by side in two rows.

        Raises:
            ConfigError: it is no such grid, has one tile or too many, or the overlap is out of its range.
        """
        found = _GRID.fullmatch(text.strip().lower()) if isinstance(text, str) else None
        if found is None:
            raise ConfigError(f"'{text}' is no grid of tiles.", _HINT)
        columns, rows = int(found[1]), int(found[2])
        if not (1 <= columns <= _MOST_SIDE and 1 <= rows <= _MOST_SIDE and columns * rows <= _MOST_TILES):
            raise ConfigError(
                f"A grid of {columns} x {rows} tiles does not work: 1 to {_MOST_SIDE} each way, and at most {_MOST_TILES}.",
                _HINT,
            )
        if columns * rows == 1:
            raise ConfigError("One tile is the whole image.", "Leave the tiles out, or write 2x2.")
        hint = f"{OVERLAP:g} for example: a fifth of a tile."
        check_number("tile_overlap", overlap, 0, _MOST_OVERLAP, hint=hint)
        return cls(columns=columns, rows=rows, overlap=float(overlap))

    def __str__(self) -> str:
        return f"{self.columns}x{self.rows}"

    def tile_wh(self, image_wh: tuple[int, int]) -> tuple[int, int]:
        """Width and height of a tile of an image in pixels."""
        return _side(image_wh[0], self.columns, self.overlap), _side(image_wh[1], self.rows, self.overlap)

    def windows(self, image_wh: tuple[int, int]) -> tuple[Window, ...]:
        """Where the tiles of an image lie, row by row; none where they would be too small to show anything."""
        width, height = self.tile_wh(image_wh)
        if min(width, height) < _SMALLEST:
            return ()
        lefts, tops = _starts(image_wh[0], width, self.columns), _starts(image_wh[1], height, self.rows)
        return tuple((left, top, left + width, top + height) for top in tops for left in lefts)


def read_tiles(text: str | None, overlap: float | None = None) -> Tiles | None:
    """The tiles that options ask for; ``None`` where they ask for none.

    Raises:
        ConfigError: as ``Tiles.read``, or there is an overlap without tiles.
    """
    if text:
        return Tiles.read(text, OVERLAP if overlap is None else overlap)
    if overlap is not None:
        raise ConfigError("tile_overlap is for tiles, and there are none.", 'Say how many: tiles = "2x2".')
    return None


def _side(length: int, count: int, overlap: float) -> int:
    """Pixels of a tile's side, rounded up: together they cover the image."""
    exact = length / (count - (count - 1) * overlap)
    return min(length, -int(-exact // 1))


def _starts(length: int, side: int, count: int) -> list[int]:
    """Where each of the tiles begins: the first at 0, the last so that it ends with the image."""
    return [0] if count == 1 else [round(at * (length - side) / (count - 1)) for at in range(count)]
