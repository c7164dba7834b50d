"""Brings results to the cloud: start from ``MqttSink``, which is loaded when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgecv.cloud_sync.sink import MqttSink as MqttSink

__all__ = ["MqttSink"]


if not TYPE_CHECKING:  # a type checker shall find misspelt names

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module 'edgecv.cloud_sync' has no attribute '{name}'")
        from edgecv.cloud_sync.sink import MqttSink

        return MqttSink


def __dir__() -> list[str]:
    return __all__
