"""Brings results to the cloud and to Home Assistant: ``MqttSink`` and ``HomeAssistantSink`` are loaded when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecv._internal.extras import lazy_names

if TYPE_CHECKING:
    from edgecv.cloud_sync.home_assistant.options import HomeAssistantOptions as HomeAssistantOptions
    from edgecv.cloud_sync.home_assistant.sink import HomeAssistantSink as HomeAssistantSink
    from edgecv.cloud_sync.sink import MqttSink as MqttSink

__all__ = ["HomeAssistantOptions", "HomeAssistantSink", "MqttSink"]


if not TYPE_CHECKING:  # a type checker shall find misspelt names
    __getattr__ = lazy_names(
        __name__,
        {
            "HomeAssistantOptions": "edgecv.cloud_sync.home_assistant.options",
            "HomeAssistantSink": "edgecv.cloud_sync.home_assistant.sink",
            "MqttSink": "edgecv.cloud_sync.sink",
        },
    )


def __dir__() -> list[str]:
    return __all__
