"""Proof that an export computes what its source computes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from edgecv.converters.source import SourceModel
from edgecv.errors import ParityError
from edgecv.protocols import Array, Session
from edgecv.results import Image

MINIMUM_COSINE = 0.9999


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputParity:
    """One output over all pictures: lowest cosine, and the largest difference of one element."""

    name: str
    cosine: float
    worst: float


def check_parity(source: SourceModel, session: Session, pictures: Iterable[Image]) -> tuple[OutputParity, ...]:
    """Compare an export with its source on fitted ``(H, W, 3)`` uint8 BGR pictures.

    Raises:
        ParityError: an output differs.
    """
    found: dict[str, OutputParity] = {}
    for picture in pictures:
        wanted = source.reference(picture)
        given = session.run({source.input.name: picture[None]})
        for name, parity in _compare(wanted, given).items():
            before = found.get(name, parity)
            found[name] = OutputParity(
                name=name, cosine=min(parity.cosine, before.cosine), worst=max(parity.worst, before.worst)
            )
    bad = [parity for parity in found.values() if not parity.cosine >= MINIMUM_COSINE]  # catches NaN, too
    if bad:
        listed = ", ".join(f"{p.name} cosine {p.cosine:.6f}, worst element {p.worst:.4g}" for p in bad)
        raise ParityError(f"The export differs from {source.name}: {listed}.", "Nothing was written. Report the model.")
    return tuple(found.values())


def _compare(wanted: Mapping[str, Array], given: Mapping[str, Array]) -> dict[str, OutputParity]:
    return {
        name: OutputParity(name=name, cosine=cosine(wanted[name], given[name]), worst=_worst(wanted[name], given[name]))
        for name in wanted
    }


def cosine(first: Array, second: Array) -> float:
    """Cosine of the angle between two tensors, each as one vector; 1 for two zero vectors."""
    a, b = first.reshape(-1).astype(np.float64), second.reshape(-1).astype(np.float64)
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths else float(np.array_equal(a, b))


def _worst(first: Array, second: Array) -> float:
    return float(np.abs(first.astype(np.float64) - second.astype(np.float64)).max())
