"""Checkpoints that attack their reader."""

from __future__ import annotations

import argparse
import json
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from edgecv.converters.checkpoints.checkpoint import read_checkpoint
from edgecv.converters.checkpoints.weights import read_weights
from edgecv.converters.families.ultralytics_import import tasks
from edgecv.converters.families.yolov8 import open_checkpoint
from edgecv.converters.source import SourceOptions
from edgecv.errors import UnsupportedSource
from tests.security.hostile_checkpoints import (
    Call,
    bare,
    edited,
    global_,
    number,
    ordered_with_state,
    shell,
    state_dict,
    tensor,
    text,
    write_archive,
)
from tests.security.measured import run_code

LINEAR = torch.nn.Linear(4, 4)
# Shapes that fit the network, so that only the attack can be the reason for a refusal.
BIAS = tensor("FloatStorage", "b", 4, (4,), (1,))


def hook(network: Any, marker: Path) -> None:
    network.model[0]._forward_hooks[0] = shell(marker)


def quiet_hook(network: Any, _marker: Path) -> None:
    """A hook that is a listed class: nothing in the file looks odd, and every image would pass through it."""
    network.model[0]._forward_pre_hooks[0] = torch.nn.Identity()


def state_dict_hook(network: Any, _marker: Path) -> None:
    network._load_state_dict_pre_hooks[0] = torch.nn.Identity()
    network.model._load_state_dict_pre_hooks[0] = torch.nn.Identity()


def forward_of_its_own(network: Any, _marker: Path) -> None:
    network.model[0].forward = torch.nn.Identity()


def fuse_of_its_own(network: Any, _marker: Path) -> None:
    network.model[0].__dict__["forward_fuse"] = torch.nn.Identity()


def hidden_method(network: Any, _marker: Path) -> None:
    network.model[0].__dict__["_save_to_state_dict"] = torch.nn.Identity()


def another_method(network: Any, _marker: Path) -> None:
    network.model[0].__dict__["forward"] = Call(getattr, torch.nn.SiLU(), "__class__")


def module_state(network: Any, marker: Path) -> None:
    network.model[0].note = bare(torch.nn.Linear, {"weight": shell(marker)})


def reduce_on_a_listed_type(network: Any, _marker: Path) -> None:
    network.model[0].note = Call(torch.nn.Linear, 2, 2)


def wrapped_type(network: Any, _marker: Path) -> None:
    network.model[0].note = Call(torch._tensor._rebuild_from_type_v2, torch.nn.Identity(), torch.Tensor, (1,), {})


def wrapper_subclass(network: Any, _marker: Path) -> None:
    rebuild = torch._utils._rebuild_wrapper_subclass
    network.model[0].note = Call(rebuild, torch.Tensor, torch.float32, (1,), (1,), 0, torch.strided, "cpu", False)


def evaluated_activation(network: Any, marker: Path) -> None:
    network.yaml["activation"] = f"open({str(marker)!r}, 'w') and torch.nn.SiLU()"


def named_function(network: Any, _marker: Path) -> None:
    network.yaml["backbone"][0][2] = "parse_model"


def downloading_layer(network: Any, _marker: Path) -> None:
    network.yaml["backbone"][0] = [-1, 1, "TorchVision", [8, "resnet18", "DEFAULT"]]


def torchvision_function(network: Any, _marker: Path) -> None:
    network.yaml["backbone"][0] = [-1, 1, "torchvision.ops.nms", [8]]


def endless_layers(network: Any, _marker: Path) -> None:
    network.yaml["backbone"][0] = [-1, 100, "C2f", [65536, True]]


def cycle(network: Any, _marker: Path) -> None:
    network.model[0]._modules["again"] = network.model[0]


def parts_without_end(network: Any, _marker: Path) -> None:
    """Thirty modules that each hold the next twice: a billion paths."""
    inner: Any = torch.nn.Identity()
    for _ in range(30):
        inner = torch.nn.Sequential(inner, inner)
    network.model[0]._modules["tree"] = inner


def another_network(network: Any, _marker: Path) -> None:
    network.__class__ = tasks().RTDETRDetectionModel


def setting_of_a_layer_that_has_none(network: Any, _marker: Path) -> None:
    """An upsampling to a size, where the description says a factor."""
    upsample(network).size = (20, 20)


def setting_that_is_no_number(network: Any, _marker: Path) -> None:
    upsample(network).scale_factor = torch.tensor(3.0)


def setting_beyond_any_number(network: Any, _marker: Path) -> None:
    network.model[0].bn.eps = 1e30


def setting_too_large_to_write(network: Any, _marker: Path) -> None:
    network.model[0].i = 10**5000


def upsample(network: Any) -> Any:
    """A layer of torch in the place of the first activation, and in the description."""
    network.yaml["backbone"].append([-1, 1, "nn.Upsample", [None, 2, "nearest"]])
    network.yaml["head"][0][0] = [1]
    layer, head = torch.nn.Upsample(scale_factor=2, mode="nearest"), network.model[1]
    layer.i, layer.f, layer.type, layer.np = 1, -1, "torch.nn.modules.upsampling.Upsample", 0
    head.i, head.f = 2, [1]
    network.model = torch.nn.Sequential(network.model[0], layer, head)
    return layer


def other_wiring(network: Any, _marker: Path) -> None:
    network.model[1].f = [-1]


ATTACKS = [
    hook,
    quiet_hook,
    state_dict_hook,
    forward_of_its_own,
    fuse_of_its_own,
    hidden_method,
    another_method,
    module_state,
    reduce_on_a_listed_type,
    wrapped_type,
    wrapper_subclass,
    evaluated_activation,
    named_function,
    downloading_layer,
    torchvision_function,
    endless_layers,
    cycle,
    parts_without_end,
    another_network,
    setting_of_a_layer_that_has_none,
    setting_that_is_no_number,
    setting_beyond_any_number,
    setting_too_large_to_write,
    other_wiring,
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda function: function.__name__)
def test_an_attack_in_a_network_is_refused_and_nothing_runs(tmp_path: Path, attack) -> None:
    tasks()
    marker = tmp_path / "ran"
    path = edited(tmp_path / "evil.pt", lambda network: attack(network, marker))
    with pytest.raises(UnsupportedSource) as caught:
        open_checkpoint(path, SourceOptions())
    assert "--trust-pickle" in caught.value.hint
    assert not marker.exists()


def test_objects_that_are_no_module_tensor_or_plain_value_do_not_survive(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    def edit(network: Any) -> None:
        network.__dict__["note"] = bare(torch.nn.Linear, {"weight": 1})
        network.criterion = argparse.Namespace(lr=1)
        network.model[0].__dict__["note"] = bare(torch.nn.Linear, {"weight": 1})
        network.model[1].note = ordered_with_state(marker)

    content = read_checkpoint(edited(tmp_path / "odd.pt", edit))
    network = content["model"]
    assert type(network) is tasks().DetectionModel
    assert content["train_args"] == {"imgsz": 64}
    assert not {"note", "criterion"} & set(vars(network))
    assert "note" not in vars(network.model[0])
    assert "note" not in vars(network.model[1])
    assert not marker.exists()


def build_on_a_class(marker: Path) -> bytes:
    """Sets attributes of a class: the next module of that class would run them."""
    state = b"}" + text("forward") + global_("posix", "system") + b"s"
    return b"\x80\x02" + global_("torch.nn.modules.linear", "Linear") + state + b"b."


def items_of_a_class(marker: Path) -> bytes:
    return b"\x80\x02" + global_("torch.nn.modules.container", "Sequential") + text("a") + text("b") + b"s."


def command(marker: Path) -> bytes:
    return b"\x80\x02" + global_("posix", "system") + b"(" + text(f"touch {marker}") + b"tR."


def command_by_inst(marker: Path) -> bytes:
    return b"(" + text(f"touch {marker}") + b"iposix\nsystem\n."


def command_by_obj(marker: Path) -> bytes:
    return b"(" + global_("posix", "system") + text(f"touch {marker}") + b"o."


def command_by_stack(marker: Path) -> bytes:
    return b"\x80\x04" + text("posix") + text("system") + b"\x93(" + text(f"touch {marker}") + b"tR."


def called_result(marker: Path) -> bytes:
    """The result of a look-up, called."""
    lookup = global_("builtins", "getattr") + b"(" + global_("os", "path") + text("forward") + b"tR"
    return b"\x80\x02" + lookup + b"(" + text(f"touch {marker}") + b"tR."


def extension(marker: Path) -> bytes:
    return b"\x80\x02\x82\x01."


def nested_key(marker: Path) -> bytes:
    """A key that takes 2 to the power of 60 steps to hash."""
    key = b"(I1\nt" + b"2\x86" * 60
    return b"\x80\x02}" + key + b"I1\ns."


def no_end(marker: Path) -> bytes:
    return b"\x80\x02}"


def endless_number(marker: Path) -> bytes:
    return b"I" + b"9" * 100_000 + b"\n."


def marks(marker: Path) -> bytes:
    return b"\x80\x02" + b"(" * 100 + b"ttR."


RAW = [
    build_on_a_class,
    items_of_a_class,
    command,
    command_by_inst,
    command_by_obj,
    command_by_stack,
    called_result,
    extension,
    nested_key,
    no_end,
    endless_number,
    marks,
]


@pytest.mark.parametrize("attack", RAW, ids=lambda function: function.__name__)
@pytest.mark.parametrize("read", ["checkpoint", "weights"])
def test_a_hostile_pickle_is_refused_and_nothing_runs(tmp_path: Path, attack, read: str) -> None:
    marker = tmp_path / "ran"
    path = write_archive(tmp_path / "evil.pt", attack(marker))
    with pytest.raises(UnsupportedSource) as caught:
        read_checkpoint(path) if read == "checkpoint" else read_weights(path, LINEAR.state_dict())
    assert str(path) in caught.value.message
    assert caught.value.hint
    assert not marker.exists()


def test_the_old_container_is_read_as_inert_data_too(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    torch.save({"weight": shell(marker)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(UnsupportedSource, match=r"posix\.system"):
        read_weights(tmp_path / "old.pth", LINEAR.state_dict())
    assert not marker.exists()


def repeated(folder: Path) -> Path:
    """800 bytes that would be 8 GB."""
    weight = tensor("FloatStorage", "w", 1, (4, 4), (0, 0))
    return write_archive(
        folder / "repeated.pt", state_dict({"weight": weight, "bias": BIAS}), {"w": bytes(4), "b": bytes(16)}
    )


def too_large(folder: Path) -> Path:
    weight = tensor("FloatStorage", "w", 1 << 40, (4, 4), (4, 1))
    return write_archive(
        folder / "large.pt", state_dict({"weight": weight, "bias": BIAS}), {"w": bytes(4), "b": bytes(16)}
    )


def behind_the_end(folder: Path) -> Path:
    weight = tensor("FloatStorage", "w", 16, (4, 4), (4, 1), offset=8)
    return write_archive(
        folder / "end.pt", state_dict({"weight": weight, "bias": BIAS}), {"w": bytes(64), "b": bytes(16)}
    )


def overlapping(folder: Path) -> Path:
    """More elements than the storage holds, each inside it."""
    weight = tensor("FloatStorage", "w", 8, (4, 4), (1, 1))
    return write_archive(
        folder / "over.pt", state_dict({"weight": weight, "bias": BIAS}), {"w": bytes(32), "b": bytes(16)}
    )


def shared(folder: Path) -> Path:
    """One storage under many names: together more than the file."""
    tensors = {f"weight{index}": tensor("FloatStorage", "w", 4096, (64, 64), (64, 1)) for index in range(100)}
    return write_archive(folder / "shared.pt", state_dict(tensors), {"w": bytes(16384)})


def packed(folder: Path) -> Path:
    weight = tensor("FloatStorage", "w", 16, (4, 4), (4, 1))
    tensors = state_dict({"weight": weight, "bias": BIAS})
    return write_archive(folder / "packed.pt", tensors, {"w": bytes(64), "b": bytes(16)}, zipfile.ZIP_DEFLATED)


def missing_storage(folder: Path) -> Path:
    weight = tensor("FloatStorage", "nowhere", 16, (4, 4), (4, 1))
    return write_archive(folder / "missing.pt", state_dict({"weight": weight, "bias": BIAS}), {"b": bytes(16)})


def negative(folder: Path) -> Path:
    weight = tensor("FloatStorage", "w", 16, (4, 4), (4, -1))
    return write_archive(
        folder / "neg.pt", state_dict({"weight": weight, "bias": BIAS}), {"w": bytes(64), "b": bytes(16)}
    )


def of_objects(folder: Path) -> Path:
    weight = tensor("ComplexFloatStorage", "w", 16, (4, 4), (4, 1))
    return write_archive(
        folder / "kind.pt", state_dict({"weight": weight, "bias": BIAS}), {"w": bytes(128), "b": bytes(16)}
    )


TENSORS = [repeated, too_large, behind_the_end, overlapping, packed, missing_storage, negative, of_objects]


@pytest.mark.parametrize("make", TENSORS, ids=lambda function: function.__name__)
def test_a_tensor_that_its_file_does_not_hold_is_refused(tmp_path: Path, make) -> None:
    with pytest.raises(UnsupportedSource):
        read_weights(make(tmp_path), LINEAR.state_dict())


def test_one_storage_under_many_names_is_refused(tmp_path: Path) -> None:
    wanted = {f"weight{index}": torch.zeros(64, 64) for index in range(100)}
    with pytest.raises(UnsupportedSource, match="larger than the file"):
        read_weights(shared(tmp_path), wanted)


def gigabytes(folder: Path) -> list[Path]:
    """Small files that claim much, each under 10 MB."""
    edge = 46_000
    claims = tensor("FloatStorage", "w", 1, (edge, edge), (0, 0))
    many = b"\x80\x02(" + b"}" * 9_000_000 + b"t."
    nested = b"\x80\x02" + b"]" * 2_000_000 + b"a" * 1_999_999 + b"."
    again = b"\x80\x02(" + b"K\x01" * 100_000 + b"lq\x00" + (b"c__builtin__\nset\nh\x00\x85R") * 100_000 + b"."
    return [
        write_archive(folder / "claims.pt", state_dict({"weight": claims}), {"w": bytes(4)}),
        write_archive(folder / "many.pt", many),
        write_archive(folder / "nested.pt", nested),
        write_archive(folder / "again.pt", again),
        write_archive(folder / "zeros.pt", state_dict({}), {"w": bytes(1 << 28)}, zipfile.ZIP_DEFLATED),
        write_archive(folder / "text.pt", b"\x80\x02" + b"X\xff\xff\xff\xff" + b"a" * 100),
        write_archive(folder / "numbers.pt", b"\x80\x02" + b"}" + number(1 << 62) + b"Ns."),
    ]


READ_ALL = """
import json, sys
from pathlib import Path
import torch
from edgecv.converters.checkpoints.weights import read_weights
from edgecv.errors import UnsupportedSource
wanted = {"weight": torch.empty(46_000, 46_000, device="meta")}
refused = 0
for path in sys.argv[1:]:
    try:
        read_weights(Path(path), wanted)
    except UnsupportedSource as error:
        refused += 1
# Not `ru_maxrss`: that counts what the process had before it became this program.
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"refused": refused, "peak_kib": int(peak)}))
"""


def test_small_files_that_claim_gigabytes_take_less_than_one(tmp_path: Path) -> None:
    files = gigabytes(tmp_path)
    assert all(file.stat().st_size < 10_000_000 for file in files)
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, *map(str, files)], capture_output=True, text=True, timeout=110, check=True
    )
    found = json.loads(done.stdout)
    assert found["refused"] == len(files)
    assert found["peak_kib"] < 1 << 20


def test_an_honest_upsampling_is_read(tmp_path: Path) -> None:
    tasks()
    path = edited(tmp_path / "sound.pt", upsample)
    assert read_checkpoint(path)["model"].model[1].scale_factor == 2


def unfolding_lists(folder: Path) -> Path:
    """Ten kilobytes: a list of a thousand times a list of a thousand times ... (10^15 values)."""
    levels = b"](" + b"K\x01" * 1000 + b"eq\x00"
    for level in range(4):
        levels += b"](" + (b"h" + bytes([level])) * 1000 + b"eq" + bytes([level + 1])
    return write_archive(folder / "lists.pt", b"\x80\x02}" + text("epoch") + b"(" + levels + b"ts.")


def unfolding_modules(folder: Path) -> Path:
    """Half a megabyte: one module of 20,000 attributes stands in 19,000 places."""
    empty = b"".join(text(name) + b"}" for name in ("_parameters", "_buffers", "_modules"))
    attributes = b"".join(text(f"a{index}") + b"N" for index in range(20_000))
    child = global_("torch.nn.modules.conv", "Conv2d") + b")\x81}(" + attributes + empty + b"ubq\x01"
    children = b"".join(text(str(index)) + b"h\x01" for index in range(19_000))
    state = text("_parameters") + b"}" + text("_buffers") + b"}" + text("_modules") + b"}(" + children + b"u"
    root = global_("torch.nn.modules.container", "Sequential") + b")\x81}(" + state + b"ub"
    return write_archive(folder / "modules.pt", b"\x80\x02}(" + text("x") + child + text("model") + root + b"u.")


def keys_with_fractions(folder: Path) -> Path:
    """Tuples with fractions: half a million of them can be chosen so that all have one hash, and a dictionary takes hours."""
    pairs = b"".join(b"G" + struct.pack(">dd", 1 / (n + 1), n)[:8] + b"K\x01\x86N" for n in range(10))
    return write_archive(folder / "keys.pt", b"\x80\x02}(" + pairs + b"u.")


@pytest.mark.parametrize("make", [unfolding_lists, unfolding_modules, keys_with_fractions])
def test_a_small_file_that_unfolds_is_refused_at_once(tmp_path: Path, make) -> None:
    path = make(tmp_path)
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_CPU, (30, 30))\n"
        "from pathlib import Path\n"
        "from edgecv.converters.checkpoints.checkpoint import read_checkpoint\n"
        "from edgecv.converters.checkpoints.weights import read_weights\n"
        "from edgecv.errors import UnsupportedSource\n"
        "for read in (lambda path: read_checkpoint(path), lambda path: read_weights(path, {})):\n"
        f"    try: read(Path({str(path)!r}))\n"
        "    except UnsupportedSource as error: print('refused:', error.message)\n"
    )
    ended = run_code(code)
    assert (ended.code, ended.stdout.count("refused"), ended.peak_mb < 1000) == (0, 2, True), ended.stderr


def test_flags_do_not_copy_the_storage_they_lie_in(tmp_path: Path) -> None:
    names = [f"flag{index}" for index in range(20)]
    size = 1 << 20
    pickled = state_dict({name: tensor("BoolStorage", "w", size, (2,), (1,), 3) for name in names})
    path = write_archive(tmp_path / "flags.pt", pickled, {"w": bytes(4) + b"\x07" + bytes(size - 5)})
    found = read_weights(path, {name: torch.zeros(2, dtype=torch.int64) for name in names})
    assert found["flag0"].tolist() == [False, True]
    assert all(flag.untyped_storage().nbytes() < 100 for flag in found.values())


@pytest.mark.parametrize("name", ["resnet18", "mobile_sam"])
def test_weights_of_a_named_network_are_read_as_inert_data(tmp_path: Path, name: str) -> None:
    import edgecv

    marker = tmp_path / "ran"
    torch.save({"state_dict": shell(marker)}, tmp_path / "evil.pth")
    with pytest.raises(UnsupportedSource, match=r"posix\.system"):
        edgecv.convert(
            name,
            precision="fp32",
            out=tmp_path / "out.ecv",
            options=edgecv.SourceOptions(weights=tmp_path / "evil.pth"),
        )
    assert not marker.exists()
    assert not (tmp_path / "out.ecv").exists()


def test_the_command_line_names_the_attack_and_ends_with_1(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    path = edited(tmp_path / "evil.pt", lambda network: setattr(network.model[0], "note", shell(marker)))
    done = subprocess.run(
        [sys.executable, "-m", "edgecv", "convert", str(path), "--out", str(tmp_path / "out.ecv")],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env={**os.environ, "COLUMNS": "400"},
    )
    assert done.returncode == 1
    assert "posix.system" in done.stderr
    assert "--trust-pickle" in done.stderr
    assert "Traceback" not in done.stderr
    assert not marker.exists()
