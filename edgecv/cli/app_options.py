"""What ``edgecv run``, ``record`` and ``replay`` read in the same way: a model and sources, from options and ``app.toml``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgecv.cli.console import note
from edgecv.errors import ConfigError

if TYPE_CHECKING:
    from edgecv.choosing import LoadOptions
    from edgecv.cli.app_config import AppFile
    from edgecv.model import Model
    from edgecv.pipelines.fitting_model import FittingModel
    from edgecv.pipelines.source_config import SourceConfig

COMMAND_LINE = "the command line"


def read_options(
    config: Path | None,
    bundle: Path | None,
    runtime: str | None,
    precision: str | None,
    threads: int | None,
    conf: float | None,
    iou: float | None,
    classes: str | None,
    device: str | None = None,
    tiles: str | None = None,
) -> AppFile:
    """The file, or an empty one, with what the options say of ``[model]`` in place of what stands there."""
    from msgspec.structs import replace

    from edgecv.cli.app_config import AppFile, read_app_file

    file = read_app_file(config) if config is not None else AppFile()
    options = {
        "bundle": None if bundle is None else str(bundle),
        "runtime": runtime,
        "precision": precision,
        "threads": threads,
        "device": device,
        "tiles": tiles,
        "confidence": conf,
        "iou": iou,
        "classes": [name.strip() for name in classes.split(",") if name.strip()] if classes else None,
    }
    return replace(
        file, model=replace(file.model, **{key: value for key, value in options.items() if value is not None})
    )


def sources_named(tables: Sequence[SourceConfig], uris: Sequence[tuple[str, str]]) -> list[SourceConfig]:
    """The sources that ``--source`` names, each with URI and name; one of the file keeps its mask, purpose and retention.

    Raises ``ConfigError`` where the file masks cameras and one that is named is none of its sources: it would have no mask.
    """
    from edgecv.pipelines.source_config import SourceConfig

    known = {str(table.uri): table for table in tables}
    unknown = [uri for uri, _ in uris if uri not in known]
    if unknown and any(table.mask for table in tables):
        raise ConfigError(
            f"The file masks its cameras, and {SourceConfig(unknown[0]).result_name} would have no mask.",
            "Put that source into the file, with a mask or without.",
        )
    plain = SourceConfig("0")
    return [
        SourceConfig(uri, name, mask=table.mask, purpose=table.purpose, retention=table.retention)
        for uri, name in uris
        for table in (known.get(uri, plain),)
    ]


def check_complete(file: AppFile, command: str) -> None:
    """Raise ``ConfigError`` where a command has no model or no source."""
    if not file.model.bundle:
        hint = f'edgecv {command} BUNDLE ..., or in app.toml: [model] bundle = "NAME.ecv"'
        raise ConfigError("There is no bundle.", hint)
    if not file.sources:
        hint = f"edgecv {command} BUNDLE --source 0, or [[sources]] in app.toml."
        raise ConfigError("There is no source.", hint)


def load_model(file: AppFile, bundle: Path | str) -> Model | FittingModel:
    """The model as ``[model]`` wants it; errors as ``edgecv.load``. Why this variant was taken is said in a line on stderr.

    It is loaded for two images at a time where there is always a next one, and for one where the newest is to be answered soonest.
    Of a bundle with several input shapes, each source gets the one that wastes least.
    With tiles it looks at those as well.
    """
    from edgecv.choosing import computed_on
    from edgecv.model import Model
    from edgecv.pipelines.fitting_model import load_fitting

    logging.getLogger("edgecv.choosing").setLevel(logging.INFO)
    model = load_fitting(bundle, file.model.grid, **load_options(file))
    if file.model.device != "cpu" and isinstance(model, Model):  # a FittingModel says it of each shape that it loads
        note(f"{model.name} runs on {computed_on(model.session)}.")
    return model


def load_options(file: AppFile) -> LoadOptions:
    """What ``[model]`` says of how to load a bundle, with the lanes that suit the sources."""
    is_camera = len(file.sources) == 1 and (file.sources[0].file is None or file.sources[0].plays.speed > 0)
    return {
        "runtime": file.model.runtime,
        "precision": file.model.precision,
        "threads": file.model.threads,
        "device": file.model.device,
        "lanes": 1 if is_camera else 2,
        "cache_dir": file.model.cache_dir,
        "extra": file.model.extra,
    }
