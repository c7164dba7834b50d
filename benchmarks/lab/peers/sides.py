"""Who takes part: EdgeCV, the tools it is compared with, and the bare loops, each with the command that runs it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from edgecv.benchmarks.lab.peers.environments import HERE, Environment
from edgecv.errors import ConfigError

_PROGRAMS = Path(__file__).parent / "programs"
# The package that reports OpenVINO's use is kept out, as in EdgeCV itself (edgecv/_internal/quiet.py).
_APP = "import sys; sys.modules['openvino_telemetry'] = None; from openvino.tools.benchmark.main import main; main()"
_QUICK_SHARE = 5  # a slow side runs one frame in so many: its rate needs no more
_FEWEST_FRAMES = 12

SAME_OPENVINO = "One file for all: Ultralytics' INT8 OpenVINO export"
OWN_OPENVINO = "EdgeCV's INT8 OpenVINO network"
ONNX = "INT8 ONNX"
LITERT = "INT8 LiteRT"
GROUPS = (SAME_OPENVINO, OWN_OPENVINO, ONNX, LITERT)

Reads = Literal["edgecv", "json", "benchmark_app"]


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """What is compared.

    Attributes:
        name: Tool, and how it runs.
        group: The table it stands in.
        command: What prints its figures.
        reads: How they are read from its output.
        frames: How many frames it is given.
        environment: Where it is installed.
        threads: How it gets its number of threads.
        note: What else a reader should know.
        missing: Why it cannot run; empty where it can.
    """

    name: str
    group: str
    command: tuple[str, ...] = ()
    reads: Reads = "json"
    frames: int = 0
    environment: str = HERE
    threads: str = ""
    note: str = ""
    missing: str = ""


class Files(msgspec.Struct, frozen=True, kw_only=True):
    """The models and the video.

    Attributes:
        bundle: EdgeCV's, with the three INT8 variants.
        video: The clip.
        openvino: Folder of Ultralytics' INT8 OpenVINO export.
        onnx: Ultralytics' INT8 ONNX.
        litert: Ultralytics' full-integer TFLite file.
        with_boxes: The bundle's INT8 OpenVINO network with the arithmetic that Model API expects inside the file.
    """

    bundle: Path
    video: Path
    openvino: Path
    onnx: Path
    litert: Path
    with_boxes: Path


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much each side does."""

    frames: int
    threads: int
    app_seconds: int


def all_sides(files: Files, plan: Plan, environments: dict[str, Environment]) -> list[Side]:
    """Every side in the order of the tables; one whose environment or file is missing says why."""
    made = _Sides(files, plan)
    return [_checked(side, environments) for side in made]


def _checked(side: Side, environments: dict[str, Environment]) -> Side:
    there = environments.get(side.environment, Environment(name=side.environment, reason="was not made"))
    if there.reason:
        return msgspec.structs.replace(side, missing=f"the environment {there.name} {there.reason}")
    gone = [word for word in side.command if word.startswith("/") and not Path(word).exists()]
    command = (there.python, *side.command)
    return msgspec.structs.replace(side, command=command, missing=f"{gone[0]} does not exist" if gone else "")


class _Sides:
    """Makes them; the command of each still lacks the Python of its environment."""

    def __init__(self, files: Files, plan: Plan) -> None:
        self._files, self._plan = files, plan
        self._few = max(_FEWEST_FRAMES, plan.frames // _QUICK_SHARE)

    def __iter__(self) -> Iterator[Side]:
        yield from self._same_openvino()
        yield from self._own_openvino()
        yield from self._of_format(ONNX, "onnxruntime", self._files.onnx)
        yield from self._of_format(LITERT, "litert", self._files.litert)

    def _same_openvino(self) -> Iterator[Side]:
        group, xml = SAME_OPENVINO, _graph(self._files.openvino)
        yield self._edgecv(group, "edgecv run", xml, "openvino")
        yield self._ultralytics(group, self._files.openvino, self._plan.frames)
        yield self._model_api(group, "sync", xml, 1)
        yield self._model_api(group, "async", xml, 1)
        yield self._model_api(group, "async", xml, 2)
        yield self._loop(group, "openvino", xml, self._plan.frames)
        yield from self._apps(group, xml)

    def _own_openvino(self) -> Iterator[Side]:
        group = OWN_OPENVINO
        yield self._edgecv(group, "edgecv run", self._files.bundle, "openvino")
        yield self._model_api(group, "async", self._files.with_boxes, 1, "--bytes")
        yield self._model_api(group, "async", self._files.with_boxes, 2, "--bytes")
        yield from self._apps(group, self._files.bundle / "openvino-int8/model.xml")

    def _of_format(self, group: str, runtime: str, exported: Path) -> Iterator[Side]:
        frames = self._few
        yield self._edgecv(group, "edgecv run, its own file", self._files.bundle, runtime)
        yield self._edgecv(group, "edgecv run, Ultralytics' file", exported, runtime, frames)
        yield self._ultralytics(group, exported, frames)
        yield self._loop(group, runtime, exported, frames)

    def _edgecv(self, group: str, name: str, model: Path, runtime: str, frames: int = 0) -> Side:
        frames, threads = frames or self._plan.frames, str(self._plan.threads)
        numbers = ("--threads", threads, "--max-frames", str(frames))
        precision = ("--precision", "int8") if model.suffix == ".ecv" else ()
        command = (
            "-m",
            "edgecv",
            "run",
            str(model),
            "--source",
            str(self._files.video),
            *numbers,
            *precision,
            "--json",
        )
        return Side(
            name=name,
            group=group,
            command=(*command, "--runtime", runtime),
            reads="edgecv",
            frames=frames,
            threads=f"`--threads {threads}`",
            note="writes JSON lines",
        )

    def _ultralytics(self, group: str, exported: Path, frames: int) -> Side:
        program = ("-m", "edgecv.benchmarks.lab", "peer_predict", str(exported), str(self._files.video))
        return Side(
            name="Ultralytics predict",
            group=group,
            command=(*program, "--frames", str(frames), "--threads", str(self._plan.threads)),
            frames=frames,
            threads="has no setting; the processors it may use decide, and for LiteRT its constant, which is set from outside",
        )

    def _model_api(self, group: str, mode: str, xml: Path, streams: int, *more: str) -> Side:
        numbers = ("--frames", str(self._plan.frames), "--threads", str(self._plan.threads), "--streams", str(streams))
        how = "asynchronous" if mode == "async" else "synchronous"
        many = f", {streams} stream{'s' if streams > 1 else ''}" if mode == "async" else ""
        return Side(
            name=f"Model API, {how}{many}",
            group=group,
            command=(str(_PROGRAMS / "model_api_loop.py"), mode, str(xml), str(self._files.video), *numbers, *more),
            frames=self._plan.frames,
            environment="model-api",
            threads="`nthreads`",
        )

    def _loop(self, group: str, runtime: str, model: Path, frames: int) -> Side:
        numbers = ("--frames", str(frames), "--threads", str(self._plan.threads))
        return Side(
            name="loop by hand",
            group=group,
            command=(str(_PROGRAMS / "hand_loop.py"), runtime, str(model), str(self._files.video), *numbers),
            frames=frames,
            environment=runtime,
            threads="the option of the runtime",
            note="nothing overlaps",
        )

    def _apps(self, group: str, xml: Path) -> Iterator[Side]:
        yield self._app(group, xml, "sync", 1)
        yield self._app(group, xml, "async", 2)

    def _app(self, group: str, xml: Path, mode: str, streams: int) -> Side:
        numbers = ("-nthreads", str(self._plan.threads), "-nstreams", str(streams), "-t", str(self._plan.app_seconds))
        requests = ("-nireq", str(streams)) if mode == "async" else ()
        return Side(
            name=f"benchmark_app, {'asynchronous, 2 streams' if mode == 'async' else 'synchronous'}",
            group=group,
            command=("-c", _APP, "-m", str(xml), "-hint", "none", "-api", mode, *numbers, *requests),
            reads="benchmark_app",
            environment="openvino",
            threads="`-nthreads`",
            note="the network alone, on noise: no video, no boxes",
        )


def _graph(folder: Path) -> Path:
    """The one ``.xml`` of an export.

    Raises:
        ConfigError: there is none, or more than one.
    """
    found: Sequence[Path] = sorted(folder.glob("*.xml"))
    if len(found) != 1:
        raise ConfigError(f"{folder} holds {len(found)} .xml files.", "Name the folder of an OpenVINO export.")
    return found[0].absolute()


def ours(side: Side) -> bool:
    """Whether it is EdgeCV."""
    return side.reads == "edgecv"
