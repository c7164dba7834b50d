"""``extra``: what no runtime knows is refused, and what this one does not use is said."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgecv
from edgecv.errors import ConfigError
from tests.golden_bundles import golden_bundle
from tests.models import arithmetic


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return golden_bundle(tmp_path_factory.mktemp("extra") / "tiny.ecv").path


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_misspelt_option_is_refused_and_the_right_one_is_named(bundle: Path, runtime: str) -> None:
    with pytest.raises(ConfigError, match="No runtime has the option 'provider_option'") as caught:
        edgecv.load(bundle, runtime=runtime, extra={"provider_option": {}})
    assert "Did you mean 'provider_options'" in caught.value.hint


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_config_is_a_mapping(bundle: Path, runtime: str) -> None:
    with pytest.raises(ConfigError, match="config is a mapping"):
        edgecv.load(bundle, runtime=runtime, extra={"config": "PERFORMANCE_HINT"})


def test_what_another_runtime_would_use_is_said(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    edgecv.load(bundle, runtime="openvino", extra={"spinning": True}).close()
    assert caplog.messages[-1] == "openvino has no option 'spinning': it changes nothing."
    caplog.clear()
    edgecv.load(bundle, runtime="onnxruntime", threads=1, extra={"spinning": True}).close()
    assert "changes nothing" not in caplog.text


def test_a_bare_file_is_held_to_the_same(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="spining"):
        edgecv.load(arithmetic(tmp_path / "model.onnx"), extra={"spining": True})
