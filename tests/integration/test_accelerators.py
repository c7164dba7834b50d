"""Commands with an accelerator: what is asked for is used, said, or refused. Only AUTO of OpenVINO has something to use here."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

import edgecv
from edgecv.bundles.bundle import Bundle
from edgecv.devices.tuning.tune import TuneOptions, tune
from edgecv.errors import DeviceError, SessionError
from tests.command_line import run_here
from tests.golden_bundles import golden_bundle
from tests.models import bright_cell


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGECV_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return golden_bundle(tmp_path_factory.mktemp("accelerators") / "tiny.ecv")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    cv2.imwrite(str(folder / "0.png"), bright_cell(1, 2))
    return folder


def test_tune_measures_a_device_with_the_runtimes_that_know_it_and_load_takes_its_cell(bundle: Bundle) -> None:
    found = tune(bundle.path, TuneOptions(budget_s=20, threads=(1,), devices=("auto",)))
    assert [(one.cell.runtime, one.cell.device, one.cell.threads) for one in found.record.results] == [
        ("openvino", "auto", 1)
    ]
    assert found.record.best is not None
    with edgecv.load(bundle.path, device="AUTO") as model:
        assert model.session.providers == ("AUTO", "CPU")


def test_tune_for_tensorrt_says_what_is_missing_and_keeps_nothing(bundle: Bundle, cache: Path) -> None:
    with pytest.raises(SessionError, match="TensorrtExecutionProvider"):
        tune(bundle.path, TuneOptions(budget_s=2, devices=("tensorrt",)))
    assert not cache.exists()


@pytest.mark.parametrize("devices", [("toaster",), ("auto", "edgetpu")])
def test_tune_refuses_a_device_that_nothing_of_the_bundle_computes_on(
    bundle: Bundle, devices: tuple[str, ...], cache: Path
) -> None:
    with pytest.raises(DeviceError, match=f"computes on '{devices[-1]}'"):
        tune(bundle.path, TuneOptions(budget_s=2, devices=devices))
    assert not cache.exists()


def test_run_says_on_what_it_runs(bundle: Bundle, images: Path) -> None:
    done = run_here("run", bundle.path, "--source", images, "--compute-device", "auto", "--json")
    assert done.returncode == 0, done.stderr
    assert "tiny/openvino-fp32 runs on AUTO, CPU." in done.stderr
    assert json.loads(done.stdout)["frames"] == 1


@pytest.mark.parametrize(
    ("device", "said"), [("tensorrt", "TensorrtExecutionProvider"), ("gpu", "OpenVINO finds no device 'gpu'")]
)
def test_run_refuses_what_is_not_there(bundle: Bundle, images: Path, device: str, said: str) -> None:
    done = run_here("run", bundle.path, "--source", images, "--compute-device", device)
    assert done.returncode == 1, done.stdout
    assert said in " ".join(done.stderr.split())


def test_bench_refuses_what_is_not_there(bundle: Bundle) -> None:
    done = run_here("bench", bundle.path, "--device", "cuda", "--runs", "2", "--scenario", "single_stream")
    assert done.returncode == 1, done.stdout
    assert "CUDAExecutionProvider" in done.stderr


def test_an_app_file_names_the_device_and_options_of_its_provider(bundle: Bundle, images: Path, tmp_path: Path) -> None:
    app = tmp_path / "app.toml"
    text = f'[model]\nbundle = "{bundle.path}"\ndevice = "auto"\n[[sources]]\nuri = "{images}"\n'
    app.write_text(text)
    assert "runs on AUTO, CPU" in run_here("run", "--config", app).stderr
    app.write_text(text.replace('"auto"', '"cpu"\nextra.provider_options.CUDAExecutionProvider.device_id = 1'))
    done = run_here("run", "--config", app, "--runtime", "onnxruntime")
    assert done.returncode == 2
    assert "CUDAExecutionProvider" in done.stderr


@pytest.mark.slow
def test_bench_reports_on_what_it_measured_and_compares_only_with_the_same(bundle: Bundle) -> None:
    arguments = ("bench", bundle.path, "--scenario", "single_stream", "--runs", "2", "--runtime", "openvino", "--json")
    (on_auto,) = json.loads(run_here(*arguments, "--device", "AUTO").stdout)
    (on_cpu,) = json.loads(run_here(*arguments).stdout)
    assert (on_auto["computed_on"], on_cpu["computed_on"]) == ("AUTO, CPU", "")
    assert on_auto["comparability"]["runtimes"] == f"{on_cpu['comparability']['runtimes']} on auto"
