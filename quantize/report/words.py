"""Words of the report: names of formats and figures, and the glossary."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

FORMATS: Mapping[str, str] = MappingProxyType({"onnx": "ONNX", "openvino": "OpenVINO", "tflite": "TFLite"})

METRICS: Mapping[str, str] = MappingProxyType(
    {
        "f1_50": "same boxes (F1 at IoU 0.5)",
        "f1_75": "same boxes, tightly (F1 at IoU 0.75)",
        "matched_iou": "overlap of the same boxes (IoU)",
        "score_bias": "change of confidence",
        "top1_agreement": "same best class",
        "label_f1": "same labels (F1 at half confidence)",
        "top1_lower_bound": "same best class, at least",
        "output_cosine": "likeness of raw outputs (cosine)",
        "embedding_cosine": "likeness of embeddings (cosine)",
        "mask_iou": "overlap of masks (IoU)",
        "map50_95_drop": "points of mAP50-95 lost on labels",
        "mask_map50_95_drop": "points of mask mAP50-95 lost on labels",
        "top1_drop": "points of top-1 lost on labels",
        "map50_95": "mAP50-95",
        "map50": "mAP50",
        "float_map50": "mAP50 of float",
        "int8_map50": "mAP50 of INT8",
        "top1": "top-1 accuracy",
        "top5": "top-5 accuracy",
        "float_top5": "top-5 accuracy of float",
        "int8_top5": "top-5 accuracy of INT8",
    }
)

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
