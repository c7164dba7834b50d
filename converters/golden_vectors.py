"""Writes the golden vectors of a bundle: one image and what every variant makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from edgecv.bundles.golden import EVENLY, GOLDEN, SAMPLING, sample
from edgecv.bundles.manifest import Variant
from edgecv.choosing import runtimes_for
from edgecv.converters.source import Example
from edgecv.protocols import Array
from edgecv.runtimes.adapter import open_session
from edgecv.specs import RuntimeOptions


def write_golden(folder: Path, variants: Sequence[tuple[Variant, Mapping[str, Example]]]) -> Path:
    """Run every variant on one image, whose inputs to each part stand beside it, and keep what came out."""
    vectors: dict[str, Array] = {SAMPLING: np.array(EVENLY)}
    for variant, examples in variants:
        for part, files in variant.models.items():
            runtime = runtimes_for(variant.format)[0]
            path = folder / files.files[0].path
            named = dict(zip((spec.name for spec in files.inputs), examples[part].feeds.values(), strict=True))
            with closing(open_session(runtime, path, RuntimeOptions(), files.inputs, files.outputs)) as session:
                given = session.run(named)
            vectors |= {f"{variant.name}/{part}/in/{name}": value for name, value in named.items()}
            vectors |= {f"{variant.name}/{part}/out/{name}": sample(value) for name, value in given.items()}
    path = folder / GOLDEN
    np.savez_compressed(path, **vectors)  # type: ignore[arg-type]  # names are ours, never `allow_pickle`
    return path
