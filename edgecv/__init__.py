"""EdgeCV: convert vision models to proven INT8, run them on small devices, bring the results to the cloud.

``import edgecv`` is light: every name below is loaded when it is first used.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from edgecv._internal.extras import lazy_names
from edgecv.version import __version__

if TYPE_CHECKING:
    from edgecv import errors as errors
    from edgecv.bundles.bundle import Bundle as Bundle
    from edgecv.cloud_sync.sink import MqttSink as MqttSink
    from edgecv.converters.convert import convert as convert
    from edgecv.converters.request import Int8Options as Int8Options
    from edgecv.converters.source import SourceOptions as SourceOptions
    from edgecv.errors import EdgeCVError as EdgeCVError
    from edgecv.events import Event as Event
    from edgecv.media.drawing import annotate as annotate
    from edgecv.media.images import read_image as read_image
    from edgecv.model import Model as Model, load as load
    from edgecv.pipelines import sinks as sinks, steps as steps
    from edgecv.pipelines.pipeline import Pipeline as Pipeline
    from edgecv.pipelines.source_config import SourceConfig as SourceConfig
    from edgecv.promptable import PromptableModel as PromptableModel
    from edgecv.results import (
        Classification as Classification,
        Detections as Detections,
        Frame as Frame,
        Masks as Masks,
        Result as Result,
    )
    from edgecv.specs import ModelSpec as ModelSpec, RuntimeOptions as RuntimeOptions
    from edgecv.tiles.model import TiledModel as TiledModel

# ONNX Runtime reads this when it is first imported: without it, it writes an id of the device below ~/.cache and looks up its
# maker's host. No plugin, and no module of EdgeCV that imports more than Python's own, is imported before this line.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# In a checkout the rooms stand beside this folder, not in it: without this line `python -m edgecv` and
# `python -m pytest` at the checkout root do not find `edgecv.converters` after a plain install (docs/adr/0001).
_CHECKOUT = Path(__file__).resolve().parent.parent
if (_CHECKOUT / "setup.py").is_file() and (_CHECKOUT / "converters").is_dir():
    __path__.append(str(_CHECKOUT))

# The module that each public name comes from.
_LAZY = {
    "Bundle": "edgecv.bundles.bundle",
    "Classification": "edgecv.results",
    "Detections": "edgecv.results",
    "EdgeCVError": "edgecv.errors",
    "Event": "edgecv.events",
    "Frame": "edgecv.results",
    "Int8Options": "edgecv.converters.request",
    "Masks": "edgecv.results",
    "Model": "edgecv.model",
    "ModelSpec": "edgecv.specs",
    "MqttSink": "edgecv.cloud_sync.sink",
    "Pipeline": "edgecv.pipelines.pipeline",
    "PromptableModel": "edgecv.promptable",
    "Result": "edgecv.results",
    "RuntimeOptions": "edgecv.specs",
    "SourceConfig": "edgecv.pipelines.source_config",
    "SourceOptions": "edgecv.converters.source",
    "TiledModel": "edgecv.tiles.model",
    "annotate": "edgecv.media.drawing",
    "convert": "edgecv.converters.convert",
    "errors": "edgecv.errors",
    "load": "edgecv.model",
    "read_image": "edgecv.media.images",
    "sinks": "edgecv.pipelines.sinks",
    "steps": "edgecv.pipelines.steps",
}

_MODULES = ("errors", "sinks", "steps")  # these names stand for the module itself

__all__ = ["__version__", *_LAZY]  # noqa: PLE0604 - the keys are strings


if not TYPE_CHECKING:  # a type checker shall find misspelt names
    __getattr__ = lazy_names(__name__, _LAZY, _MODULES)


def __dir__() -> list[str]:
    return sorted(__all__)
