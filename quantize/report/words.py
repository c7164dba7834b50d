"""Words of the report: names of formats, and the glossary."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

FORMATS: Mapping[str, str] = MappingProxyType({"onnx": "ONNX", "openvino": "OpenVINO", "tflite": "TFLite"})

GLOSSARY: Mapping[str, str] = MappingProxyType(
    {
        "Float": "The original model: each number takes 32 bits.",
        "INT8, quantizing": "Storing and computing numbers in 8 bits: a quarter of the size and often two to three times as "
        "fast. Rounding costs some accuracy, which is what this report is about.",
        "Calibration": "Running the float model over sample images to see which range its numbers take, so that 8 bits can be "
        "spread over that range.",
        "Held-out images": "Images that calibration did not see. Only they can judge fairly.",
        "Recipe": "One way to quantize: which layers, which ranges, which kind of integers.",
        "Gate": "The limits that a recipe must keep, or it is not written.",
        "Agreement, F1": "How many of the float model's boxes INT8 finds again, and how many it invents: 1 is all and none.",
        "IoU": "The area that two boxes share, divided by the area that they cover together: 1 is the same box.",
        "mAP50-95": "The usual accuracy of detectors against labels, 0 to 100: right classes, right places, strictly to loosely.",
        "Top-1": "How often the best class is the right one.",
        "Point": "A hundredth: from 43.6 to 43.1 are 0.5 points.",
        "95 % interval": "Where the loss would lie in 95 of 100 repetitions with other images of the same kind.",
        "dB": "Signal to noise on a logarithmic scale: 20 dB is noise of a tenth of the signal, 40 dB of a hundredth.",
    }
)
