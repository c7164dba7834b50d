"""What every family, exporter and quantizer keeps. A new one: its module, its line in the registry, one row here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from edgecv import registry
from edgecv.bundles.golden import cosine, real
from edgecv.converters.source import (
    Architecture,
    Exported,
    Part,
    SourceModel,
    SourceOptions,
    exporter,
    family,
    image_input,
)
from edgecv.errors import ConfigError, EdgeCVError
from edgecv.quantize.quantizer import quantizer_type
from edgecv.quantize.recipes import first_recipes
from edgecv.specs import RuntimeOptions, TensorSpec

SIDE = 32
OUTPUT = TensorSpec(name="features", role="features", shape=(1, 8, SIDE, SIDE), dtype="float32", layout="NCHW")


@pytest.fixture(scope="module")
def part() -> Part:
    """Two convolutions: what every format can express and quantize."""
    torch = pytest.importorskip("torch")

    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Conv2d(3, 8, 3, padding=1)
            self.second = torch.nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, image: Any) -> Any:
            return torch.relu(self.second(torch.relu(self.first(image.permute(0, 3, 1, 2).float() / 255))))

    torch.manual_seed(0)
    module = Small().eval()

    def reference(feeds: Any) -> dict[str, Any]:
        with torch.no_grad():
            return {"features": module(torch.from_numpy(feeds["image"])).numpy()}

    return Part(name="main", inputs=(image_input((SIDE, SIDE)),), outputs=(OUTPUT,), reference=reference, module=module)


def images(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (1, SIDE, SIDE, 3)).astype(np.uint8) for _ in range(count)]


def agreement(exported: Exported, runtime: str, part: Part) -> float:
    """The cosine between what a file gives and what the source gives."""
    (image,) = images(1)
    session = registry.resolve("runtimes", runtime)(
        exported.files[0], RuntimeOptions(), exported.inputs, exported.outputs
    )
    try:
        given = session.run({exported.inputs[0].name: image})[exported.outputs[0].name]
    finally:
        session.close()
    spec = exported.outputs[0]
    values = real(given, spec)
    return cosine(
        part.reference({"image": image})["features"], values.transpose(0, 3, 1, 2) if spec.layout == "NHWC" else values
    )


@pytest.fixture(scope="module", params=registry.names("exporters"))
def exported(
    request: pytest.FixtureRequest, part: Part, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Exported]:
    """The part in one format: made once for the tests of its exporter and of its quantizer."""
    return request.param, exporter(request.param).export(part, tmp_path_factory.mktemp(request.param))


def test_every_format_has_an_exporter_a_runtime_and_a_quantizer() -> None:
    for name in registry.names("exporters"):
        assert exporter(name).format == name
        assert name in registry.resolve("runtimes", exporter(name).runtime).formats
    assert set(registry.names("quantizers")) == set(registry.names("exporters"))


@pytest.mark.slow
def test_an_export_computes_what_the_source_computes(exported: tuple[str, Exported], part: Part) -> None:
    name, files = exported
    assert [spec.role for spec in files.inputs] == ["image"]
    assert [spec.role for spec in files.outputs] == ["features"]
    assert len({path.parent for path in files.files}) == 1
    assert all(path.is_file() for path in files.files)
    assert agreement(files, exporter(name).runtime, part) > 0.9999


@pytest.mark.slow
def test_a_half_export_is_smaller_and_agrees(exported: tuple[str, Exported], part: Part, tmp_path: Path) -> None:
    name, files = exported
    half = exporter(name).half(files, part, tmp_path)
    assert {path.parent for path in half.files} == {tmp_path}
    assert agreement(half, exporter(name).runtime, part) > 0.999


@pytest.mark.slow
def test_a_quantizer_writes_what_its_recipes_say(exported: tuple[str, Exported], part: Part, tmp_path: Path) -> None:
    name, files = exported
    work = tmp_path / "work"
    work.mkdir()
    quantizer = quantizer_type(name)(files.files, files.outputs, work)
    quantizer.calibrate(images(4))
    recipe = first_recipes(name, "conv")[0]
    for again in ("first", "second"):  # calibration runs once, for any number of recipes
        folder = tmp_path / again
        folder.mkdir()
        written, outputs = quantizer.quantize(recipe, folder)
        assert {path.parent for path in written} == {folder}
        assert [spec.name for spec in outputs] == [spec.name for spec in files.outputs]
        made = Exported(files=written, inputs=files.inputs, outputs=outputs)
        assert agreement(made, exporter(name).runtime, part) > 0.98


@pytest.mark.parametrize("name", registry.names("families"))
def test_every_family_says_which_recipes_suit_it_and_refuses_what_it_cannot_read(name: str, tmp_path: Path) -> None:
    found = family(name)
    assert found.architecture in get_args(Architecture)
    broken = tmp_path / f"broken{name}" if name.startswith(".") else Path(name)
    if name.startswith("."):
        broken.write_bytes(b"\x00broken")
    with pytest.raises(EdgeCVError) as caught:
        found.open(broken, SourceOptions())
    assert caught.value.message


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "yolov8n.yaml"])
def test_a_family_gives_a_model_whose_parts_are_what_they_say(name: str) -> None:
    pytest.importorskip("torch")
    options = SourceOptions(random_weights=True, size_wh=(64, 64))
    source = family(name if name == "resnet18" else ".yaml").open(Path(name), options)
    assert isinstance(source, SourceModel)
    assert source.batch == 1
    assert source.parts[0].inputs[0].shape == (1, 64, 64, 3)
    examples = source.examples(np.zeros((64, 64, 3), np.uint8))
    for part in source.parts:
        assert {spec.name: spec.shape for spec in part.outputs} == {
            output: value.shape for output, value in examples[part.name].outputs.items()
        }


def test_a_family_refuses_options_that_mean_nothing_to_it() -> None:
    with pytest.raises(ConfigError, match="--activation"):
        family("resnet18").open(Path("resnet18"), SourceOptions(random_weights=True, activation="softmax"))
