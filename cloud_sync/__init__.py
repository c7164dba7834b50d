"""Brings results to the cloud: start from ``MqttSink``, which is loaded when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecv._internal.extras import lazy_names

if TYPE_CHECKING:
    from edgecv.cloud_sync.sink import MqttSink as MqttSink

__all__ = ["MqttSink"]


if not TYPE_CHECKING:  # a type checker shall find misspelt names
    __getattr__ = lazy_names(__name__, {"MqttSink": "edgecv.cloud_sync.sink"})


def __dir__() -> list[str]:
    return __all__
