"""The demo's own small world: a detector trained by this project, and images of shapes with known truth."""

from __future__ import annotations

from pathlib import Path

MODEL_PATH = Path(__file__).resolve().parent / "shapes.onnx"
"""The embedded detector: ``(1, 3, 320, 320)`` RGB 0 to 1 in, ``(1, 4 + classes, 2100)`` out (README.md)."""

__all__ = ["MODEL_PATH"]
