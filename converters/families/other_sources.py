"""Files that are models, but none that EdgeCV converts: what each is, and what to do with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from edgecv.errors import UnsupportedSource

_FROM_TORCH = "Export the network to .onnx with torch.onnx.export where its code is, and convert that."
_FROM_KERAS = "Export it to .onnx: python -m tf2onnx.convert --keras FILE --output model.onnx, and convert that."
_FROM_TF = "Export it to .onnx: python -m tf2onnx.convert --saved-model FOLDER --output model.onnx, and convert that."
_RUNS = "It is a model to run, not to convert: edgecv.load(FILE). To convert, give the checkpoint (.pt) or .onnx it was made from."
_ORIGIN = "Give the checkpoint (.pt) or the .onnx it was made from."
_WEIGHTS = (
    "If it holds weights, name the network: edgecv convert resnet50 --weights FILE. If Ultralytics' training wrote it, rename it "
    "to .pt. Of any other network export an .onnx."
)
# By suffix: what such a file is, and the way out.
_KINDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        ".pth": ("a PyTorch file that may hold weights without a network", _WEIGHTS),
        ".ckpt": ("a checkpoint of Lightning or TensorFlow, which holds weights without a network", _WEIGHTS),
        ".safetensors": (
            "a file of weights without a network",
            "Load it where its code is (safetensors.torch.load_file), and save a state dict for --weights, or export an .onnx.",
        ),
        ".bin": ("a file of weights without a network", "Give the .pt, or the .onnx beside which it lies."),
        **dict.fromkeys((".h5", ".hdf5", ".keras"), ("a Keras file", _FROM_KERAS)),
        ".pb": ("a graph of TensorFlow", _FROM_TF),
        ".tflite": ("a finished TFLite model", _RUNS),
        ".xml": ("a finished OpenVINO model", _RUNS),
        **dict.fromkeys((".engine", ".plan", ".trt"), ("a TensorRT engine, built for one GPU", _ORIGIN)),
        **dict.fromkeys((".torchscript", ".ptl"), ("a compiled TorchScript program", f"{_ORIGIN} {_FROM_TORCH}")),
        ".pt2": ("a program of torch.export", f"{_ORIGIN} {_FROM_TORCH}"),
        ".pte": ("a program of ExecuTorch", f"{_ORIGIN} {_FROM_TORCH}"),
        **dict.fromkeys((".mlpackage", ".mlmodel"), ("a Core ML model", _ORIGIN)),
        ".ort": ("an ONNX model in onnxruntime's own format", "Give the .onnx it was made from."),
        ".param": ("an ncnn model", _ORIGIN),
        ".pdmodel": ("a Paddle model", "Export it to .onnx with paddle2onnx, and convert that."),
        ".caffemodel": ("a Caffe model", "Export it to .onnx, and convert that."),
        ".rknn": ("a model for a Rockchip NPU", _ORIGIN),
        ".hef": ("a model for a Hailo accelerator", _ORIGIN),
        **dict.fromkeys((".pkl", ".joblib"), ("a Python pickle", _FROM_TORCH)),
        ".ecv": (
            "a bundle: it is converted already",
            "Run it: edgecv.load(FOLDER). To convert again, give the model it was made from.",
        ),
        ".zip": ("an archive", "Unpack it and give the model in it."),
    }
)


def refuse_known(path: Path) -> None:
    """Raise ``UnsupportedSource`` for a file or folder that is known to be a model of another kind."""
    kind = _KINDS.get(path.suffix.lower())
    if path.is_dir():
        if any((path / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt")):
            kind = ("a SavedModel of TensorFlow", _FROM_TF)
        elif (path / "bundle.json").is_file():
            kind = _KINDS[".ecv"]
        elif any(path.glob("*.xml")):
            kind = _KINDS[".xml"]
        elif any(path.glob("*.param")):
            kind = _KINDS[".param"]
        elif kind is None:
            kind = ("a folder", "Give the file of the model: a checkpoint (.pt) or an .onnx.")
    if kind is not None:
        what, hint = kind
        raise UnsupportedSource(
            f"{path} is {what}; EdgeCV converts checkpoints (.pt), .onnx files and networks by name.",
            hint.replace("FOLDER", str(path)).replace("FILE", str(path)),
        )
