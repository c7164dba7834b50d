"""A web service that detects in posted images: what its author's type checker must know. Lines with `# E` must not pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import edgecv
from edgecv.cloud_sync import MqttSink

Image = npt.NDArray[np.uint8]


def detect(model: edgecv.Model, body: bytes) -> dict[str, Any]:
    try:
        image = edgecv.read_image(body)
    except edgecv.errors.SourceError as error:
        return {"error": error.message, "next": error.hint}
    return model.look(image, classes=["person", 2], confidence=0.4).as_dict()


def painted(model: edgecv.Model, image: Image) -> Image:
    found = model(image, max_detections=3)
    best = found[0]
    names: tuple[str, ...] = best.names
    print(names, len(found[1:]), found[found.confidence > 0.5])
    return edgecv.annotate(image, found, model.labels)


def masks(path: str, image: Image) -> edgecv.Masks:
    with edgecv.PromptableModel.load(path, runtime="onnxruntime") as sam:
        sam.set_image(image)
        return sam.predict(points=[[3, 4]])


def cameras(model: edgecv.Model, cloud: MqttSink) -> edgecv.Pipeline:
    door = edgecv.SourceConfig("rtsp://door/1", max_age_ms=500)
    line = edgecv.steps.Line(name="door", points=((0, 0), (9, 9)))
    return edgecv.Pipeline(
        {"door": door, "yard": 0}, model, steps=[edgecv.steps.Track(), line], sinks=[cloud, "jsonl:-"]
    )


def wrong(model: edgecv.Model, image: Image) -> None:
    edgecv.Model.load("yolov8n.ecv", thraeds=2)  # E
    model(image, conf=0.4)  # E
    print(model(image).xywh)  # E
    print(model.look(image).detections.xyxy)  # E: a classifier has none
    model.look("bus.jpg")  # E
    edgecv.annotate(image, model.look(image))  # E: result.plot() paints a result
    edgecv.steps.Trak()  # E
