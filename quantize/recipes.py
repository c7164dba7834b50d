"""Recipes: how a model is quantized, as data with a published name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from edgecv._internal.printable import nearest
from edgecv.errors import ConfigError


class GateLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an INT8 model must reach against the float model on images that calibration did not see.

    Set between recipes known to be good and known to be bad (YOLOv8n): the recipe below gives an F1 of 0.94; ranges
    from noise 0.866 with a score bias of -0.23; the S8S8 per-tensor recipe 0.875; one scale for all outputs 0.
    """

    f1_50: float = 0.90
    f1_75: float = 0.88
    matched_iou: float = 0.92
    score_bias: float = 0.06
    top1_lower: float = 0.80
    output_cosine: float = 0.80
    embedding_cosine: float = 0.99
    mask_iou: float = 0.90
    logit_error: float | None = None  # of a detector, at most; `None`: it is told, and decides nothing
    logit_noise: float | None = None  # of a classifier, likewise


# What `--strict` asks for. Mean squared error of the class scores on the 32 held-out images of coco128 (YOLOv8n, 640), weights
# rounded to nearest: ort-u8s8 0.169, litert-static 0.174, ov-mixed 0.110; F1 0.937, 0.935, 0.948. So the F1 of so few images
# tells a ruined model, and the scores tell a good one.
STRICT = GateLimits(f1_50=0.93, f1_75=0.92, matched_iou=0.95, score_bias=0.04, logit_error=0.10, logit_noise=0.01)


class QuantizeRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way to quantize, as data."""

    name: str  # published name, stored in the bundle
    format: Literal["", "onnx", "openvino", "tflite"] = ""  # format it is for; empty for any
    activations: Literal["uint8", "int8"] = "uint8"  # type of activations
    weights: Literal["int8"] = "int8"  # type of weights
    per_channel: bool = True  # one weight scale for each output channel
    # Weights of seven bits: AVX2 without VNNI adds two products in 16 bits, which eight would overflow
    reduce_range: bool = False
    symmetric: bool = False  # zero point 0 for activations as well, as TensorRT wants it
    # `nearest`: each weight goes to its nearest step; `gptq`: weights are rounded on the float network, before the export, so that
    # the outputs of each layer change least
    rounding: Literal["nearest", "gptq"] = "nearest"
    # Range estimator of tensors in general. `gradient`: weighted by what an error does to the outputs; where that is not known,
    # `mse`, and `silu` before a SiLU
    method: Literal["minmax", "mse", "percentile", "gradient"] = "mse"
    silu_method: Literal["minmax", "mse", "percentile", "silu", "gradient"] = "silu"  # of tensors that feed a SiLU
    # `packed`: the first convolution is int8 over exact pixels, several output pixels per row; `float`: it stays float
    stem: Literal["packed", "float"] = "packed"
    # `tensors`: whatever the runtime computes on integers is rounded; `inputs`: the inputs of weighted operators alone, which is
    # what TensorRT fuses
    placement: Literal["tensors", "inputs"] = "tensors"
    head: Literal["int8", "float"] = "int8"  # with `inputs`: the layers that serve one output
    # In TFLite: whether pixels are normalised in float, or all is integers from the first operator on
    entry: Literal["float", "integer"] = "float"
    float_layers: tuple[str, ...] = ()  # names of convolutions that stay float, with their activation
    # `static`: weights and activations, ranges from calibration; `weights`: weights alone; `fp16`: no integers
    kind: Literal["static", "weights", "fp16"] = "static"
    # With `weights`: those of matrix `products` alone, or of `everything`
    weights_of: Literal["products", "everything"] = "products"
    # Biases take back what rounding shifts on average: `fast`: each layer for itself; `accurate` (NNCF alone): one after the
    # other. After `gptq` that is what activations shift
    bias_correction: Literal["none", "fast", "accurate"] = "none"
    seed: int = 0  # of the sample of calibration values (OpenVINO: of images) that ranges are chosen from
    subset_size: int = 300  # at most this many calibration images are used
    # CPU class the kernels are for; `target` in the file
    cpu_class: str = msgspec.field(name="target", default="x86-vnni")
    limits: GateLimits = GateLimits()  # what the gate asks for


class CpuClass(msgspec.Struct, frozen=True, kw_only=True):
    """What onnxruntime's integer kernels of one CPU class want."""

    name: str  # as in `Variant.cpu_class`
    recipe: str  # name of its first recipe
    activations: Literal["uint8", "int8"] = "uint8"  # type of activations that its kernels fuse and run fastest
    reduce_range: bool = False  # see `QuantizeRecipe`
    # Of the first convolution, in the order they are tried
    stems: tuple[Literal["packed", "float"], ...] = ("packed", "float")
    config: dict[str, str] = {}  # session options under which an x86 machine fuses what this class fuses by itself
    bias_correction: Literal["none", "fast"] = "none"  # of recipes that round to the nearest step; see `QuantizeRecipe`


class Accelerated(msgspec.Struct, frozen=True, kw_only=True):
    """What is tried for an accelerator, which has a variant of its own in one format."""

    format: str
    rounded: QuantizeRecipe  # what comes first but with `quick`
    first: tuple[QuantizeRecipe, ...]  # in the order they are tried
    last: tuple[QuantizeRecipe, ...] = ()  # when none of them is accurate


DEFAULT_CPU_CLASS = "x86-vnni"

# What a conversion spends on accuracy. `quick` rounds to the nearest step; `standard` rounds by what layers see and chooses ranges
# by gradients; `thorough` compares recipes and seeds as well.
Effort = Literal["quick", "standard", "thorough"]

_GPTQ: Mapping[str, Any] = MappingProxyType({"rounding": "gptq", "method": "gradient", "silu_method": "gradient"})

# A new class is a line here and its machines in edgecv/bundles/cpu_classes.py.
CPU_CLASSES: Mapping[str, CpuClass] = MappingProxyType(
    {
        cpu.name: cpu
        for cpu in (
            CpuClass(name="x86-vnni", recipe="ort-u8s8"),
            CpuClass(name="x86", recipe="ort-u8s7-x86", reduce_range=True, bias_correction="fast"),
            # SDOT multiplies signed by signed. The packed stem reads unsigned pixels, which S8S8 kernels do not take.
            CpuClass(
                name="arm64",
                recipe="ort-s8s8-arm64",
                activations="int8",
                stems=("float",),
                config={"session.qdqisint8allowed": "1"},
            ),
        )
    }
)


def _onnx_recipes(cpu: CpuClass, effort: Effort) -> Iterator[QuantizeRecipe]:
    """The fastest first: each stem, then other ranges."""
    if effort != "quick":
        for stem in cpu.stems:
            yield _onnx(cpu, _with_stem(cpu, "-gptq", stem), stem=stem, bias_correction="fast", **_GPTQ)
    for stem in cpu.stems:
        yield _onnx(cpu, _with_stem(cpu, "", stem), stem=stem)
    yield _onnx(cpu, f"{cpu.recipe}-float-stem-percentile", stem="float", method="percentile")
    yield _onnx(cpu, f"{cpu.recipe}-float-stem-minmax", stem="float", method="minmax")


def _with_stem(cpu: CpuClass, name: str, stem: str) -> str:
    return f"{cpu.recipe}{name}" if stem == cpu.stems[0] else f"{cpu.recipe}{name}-float-stem"


def _onnx(cpu: CpuClass, name: str, **changes: Any) -> QuantizeRecipe:
    wanted = {
        "activations": cpu.activations,
        "reduce_range": cpu.reduce_range,
        "bias_correction": cpu.bias_correction,
        "cpu_class": cpu.name,
    }
    return QuantizeRecipe(name=name, format="onnx", **(wanted | changes))


def _openvino(name: str, **changes: Any) -> QuantizeRecipe:
    # NNCF reduces the weights of the first layer by itself (its default OverflowFix.FIRST_LAYER): one file for every x86.
    return QuantizeRecipe(name=name, format="openvino", **({"cpu_class": "x86", "bias_correction": "fast"} | changes))


def _tflite(name: str, **changes: Any) -> QuantizeRecipe:
    return QuantizeRecipe(name=name, format="tflite", activations="int8", cpu_class="", **changes)


def _rounded(recipe: QuantizeRecipe) -> QuantizeRecipe:
    return msgspec.structs.replace(recipe, name=f"{recipe.name}-gptq", rounding="gptq", bias_correction="none")


_WEIGHTS: Mapping[str, Any] = MappingProxyType({"kind": "weights", "weights_of": "everything"})

# Recipes in the order they are tried, per format and architecture: the fastest first, each next one keeps more of the float model.
# Full INT8 ruins a vision transformer (measured: cosine 0.49 to 0.88) and is no faster; its weights alone do not.
_BASE: Mapping[tuple[str, str], tuple[QuantizeRecipe, ...]] = MappingProxyType(
    {
        ("openvino", "conv"): (
            _openvino("ov-mixed"),
            _openvino("ov-mixed-accurate-bias", bias_correction="accurate"),
        ),
        ("tflite", "conv"): (
            _tflite("litert-static"),
            _tflite("litert-static-float-stem", stem="float"),
            _tflite("litert-static-percentile", stem="float", method="percentile"),
            _tflite("litert-static-minmax", stem="float", method="minmax"),
        ),
        ("onnx", "transformer"): (QuantizeRecipe(name="ort-dynamic", format="onnx", kind="weights", cpu_class=""),),
        ("openvino", "transformer"): (_openvino("ov-weights-products", kind="weights", cpu_class=""),),
        ("tflite", "transformer"): (_tflite("litert-dynamic-products", kind="weights"),),
    }
)
# What comes before them but with `quick`.
_ROUNDED: Mapping[tuple[str, str], tuple[QuantizeRecipe, ...]] = MappingProxyType(
    {
        ("openvino", "conv"): (_openvino("ov-mixed-gptq", bias_correction="none", **_GPTQ),),
        ("tflite", "conv"): (
            _tflite("litert-static-gptq", **_GPTQ),
            _tflite("litert-static-gptq-float-stem", stem="float", **_GPTQ),
        ),
        **{key: tuple(_rounded(recipe) for recipe in found) for key, found in _BASE.items() if key[1] == "transformer"},
    }
)
_LAST: Mapping[tuple[str, str], QuantizeRecipe] = MappingProxyType(
    {
        ("onnx", "conv"): QuantizeRecipe(name="ort-weights", format="onnx", cpu_class="", **_WEIGHTS),
        ("openvino", "conv"): _openvino("ov-weights", cpu_class="", **_WEIGHTS),
        ("tflite", "conv"): _tflite("litert-dynamic", **_WEIGHTS),
    }
)
FP16 = QuantizeRecipe(name="fp16", kind="fp16", cpu_class="")


def _tensorrt(name: str, **changes: Any) -> QuantizeRecipe:
    return QuantizeRecipe(
        name=name,
        format="onnx",
        cpu_class="tensorrt",
        activations="int8",
        symmetric=True,
        silu_method="mse",
        stem="float",
        placement="inputs",
        **changes,
    )


def _edgetpu(name: str, **changes: Any) -> QuantizeRecipe:
    return QuantizeRecipe(
        name=name, format="tflite", activations="int8", cpu_class="edgetpu", entry="integer", **changes
    )


# int8 weights under float activations are no faster there than fp16, and blocks left float break what it fuses.
ACCELERATED: Mapping[str, Accelerated] = MappingProxyType(
    {
        "tensorrt": Accelerated(
            format="onnx",
            rounded=_tensorrt("tensorrt-gptq", rounding="gptq"),
            first=(_tensorrt("tensorrt"), _tensorrt("tensorrt-float-head", head="float")),
            last=(FP16,),
        ),
        "edgetpu": Accelerated(
            format="tflite",
            rounded=_edgetpu("litert-edgetpu-gptq", **_GPTQ),
            first=(
                _edgetpu("litert-edgetpu"),
                _edgetpu("litert-edgetpu-percentile", method="percentile"),
                _edgetpu("litert-edgetpu-minmax", method="minmax"),
            ),
        ),
    }
)


def first_recipes(
    model_format: str, architecture: str, cpu_class: str = DEFAULT_CPU_CLASS, effort: Effort = "standard"
) -> tuple[QuantizeRecipe, ...]:
    """What is tried first. Only convolutions in ONNX differ from CPU class to CPU class."""
    key = (model_format, architecture)
    if key == ("onnx", "conv"):
        return tuple(_onnx_recipes(CPU_CLASSES[cpu_class], effort))
    return _BASE[key] if effort == "quick" else (*_ROUNDED[key], *_BASE[key])


def last_recipes(model_format: str, architecture: str, effort: Effort = "standard") -> tuple[QuantizeRecipe, ...]:
    """What is tried when nothing else kept the accuracy: int8 weights under float activations, then fp16."""
    found = _LAST.get((model_format, architecture))
    if found is None:
        return (FP16,)
    return (found, FP16) if effort == "quick" else (_rounded(found), found, FP16)


def depends_on_cpu_class(model_format: str, architecture: str) -> bool:
    """Whether another CPU class needs another file."""
    return (model_format, architecture) == ("onnx", "conv")


def _every_recipe() -> Iterator[QuantizeRecipe]:
    for cpu in CPU_CLASSES.values():
        yield from _onnx_recipes(cpu, "thorough")
    for recipes in (*_BASE.values(), *_ROUNDED.values(), *((one.rounded, *one.first) for one in ACCELERATED.values())):
        yield from recipes
    for recipe in _LAST.values():
        yield from (recipe, _rounded(recipe))
    yield FP16


RECIPES: Mapping[str, QuantizeRecipe] = MappingProxyType({recipe.name: recipe for recipe in _every_recipe()})


def cpu_classes_of(said: str | Sequence[str]) -> tuple[str, ...]:
    """CPU classes and accelerators by name, each once; ``all`` for each CPU class.

    Raises:
        ConfigError: there is no such class, or none was named.
    """
    names = [said] if isinstance(said, str) else said
    known = (*CPU_CLASSES, *ACCELERATED)
    unknown = next((name for name in names if name not in (*known, "all")), None)
    if unknown is not None or not names:
        found = f"There is no CPU class '{unknown}'." if unknown is not None else "No CPU class was named."
        raise ConfigError(found, f"{nearest(unknown or '', known)}Known: {', '.join(known)}, all.")
    return tuple(dict.fromkeys(one for name in names for one in (CPU_CLASSES if name == "all" else (name,))))
