"""Words and looks of the report: names of figures, the glossary, the style sheet."""

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
        "Calibration": "Running the float model over sample pictures to see which range its numbers take, so that 8 bits can be "
        "spread over that range.",
        "Held-out pictures": "Pictures that calibration did not see. Only they can judge fairly.",
        "Recipe": "One way to quantize: which layers, which ranges, which kind of integers.",
        "Gate": "The limits that a recipe must keep, or it is not written.",
        "Agreement, F1": "How many of the float model's boxes INT8 finds again, and how many it invents: 1 is all and none.",
        "IoU": "The area that two boxes share, divided by the area that they cover together: 1 is the same box.",
        "mAP50-95": "The usual accuracy of detectors against labels, 0 to 100: right classes, right places, strictly to loosely.",
        "Top-1": "How often the best class is the right one.",
        "Point": "A hundredth: from 43.6 to 43.1 are 0.5 points.",
        "95 % interval": "Where the loss would lie in 95 of 100 repetitions with other pictures of the same kind.",
        "dB": "Signal to noise on a logarithmic scale: 20 dB is noise of a tenth of the signal, 40 dB of a hundredth.",
    }
)

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --page: #ffffff; --band: #f3f5f7;
  --good: #1a7f37; --bad: #c0262d; --warn: #9a6700; --mark: #0b62c4; --float: #57606a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9da7b1; --line: #3d444d; --page: #0d1117; --band: #161b22;
  --good: #3fb950; --bad: #ff7b72; --warn: #d29922; --mark: #58a6ff; --float: #9da7b1; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
main { max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .5rem; } h3 { font-size: 1rem; }
.verdict { border-left: 5px solid var(--line); background: var(--band); padding: .7rem 1rem; margin: .7rem 0; }
.good { border-color: var(--good); } .bad { border-color: var(--bad); } .warn { border-color: var(--warn); }
.note, footer, .side { color: var(--soft); font-size: .88rem; }
.side { margin: 0 0 .2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { border-bottom: 1px solid var(--line); padding: .35rem .6rem; text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 600; } td { min-width: 3.2rem; max-width: 26rem; } .long { overflow-wrap: anywhere; }
td ul { margin: 0; padding-left: 1rem; min-width: 15rem; }
tr.chosen td:nth-child(-n+3) { font-weight: 700; } tr.chosen td:nth-child(3) { color: var(--good); }
tr.refused td:nth-child(3) { color: var(--bad); }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
.chart { width: 100%; min-width: 32rem; max-width: 46rem; height: auto; display: block; }
.chart .grid { stroke: var(--line); } .chart .axis { stroke: var(--soft); } .chart .name { fill: var(--soft); }
.chart .band { fill: var(--band); } .chart .number { font-weight: 600; }
.mark { stroke-width: 2.5; fill: none; } .mark.chosen { fill: var(--good); stroke: var(--good); }
.mark.passed { stroke: var(--mark); } .mark.refused { stroke: var(--bad); }
.mark.float { fill: var(--float); stroke: var(--float); }
.bar { width: 9rem; height: .8rem; background: var(--band); border: 1px solid var(--line); vertical-align: middle; }
.bar rect { fill: var(--mark); }
figure { margin: 1.2rem 0; } figcaption { font-weight: 600; margin-bottom: .3rem; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .8rem; }
.photo { width: 100%; height: auto; display: block; border-radius: 4px; }
.box rect { fill: none; stroke: #21c55d; stroke-width: 2; } .box.alone rect { stroke: #ff4d4d; stroke-dasharray: 6 3; }
.box text { fill: #ffffff; stroke: #000000; stroke-width: 2.5px; paint-order: stroke; }
dt { font-weight: 600; } dd { margin: 0 0 .5rem; }
footer { border-top: 1px solid var(--line); margin-top: 2rem; }
@media (max-width: 40rem) { .pair { grid-template-columns: 1fr; } }
@media print { :root { color-scheme: light; --ink: #000000; --soft: #444444; --line: #bbbbbb; --page: #ffffff; --band: #f3f5f7;
  --good: #1a7f37; --bad: #c0262d; --warn: #9a6700; --mark: #0b62c4; --float: #57606a; }
  body { font-size: 11pt; } h2, h3 { break-after: avoid; } figure, tr, .verdict, .chart, dt { break-inside: avoid; }
  .scroll { overflow: visible; } svg, .verdict { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""
