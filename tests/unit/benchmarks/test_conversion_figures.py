"""The table of figures says what was measured, and what was missed."""

from __future__ import annotations

import pytest

from edgecv.benchmarks.lab.matrix.cells import Outcome
from edgecv.benchmarks.lab.matrix.figures import Figure, recorded_figures, table


@pytest.mark.parametrize(
    ("value", "target", "least", "met"),
    [(0.3, 0.33, False, True), (0.34, 0.33, False, False), (0.999, 0.99, True, True), (0.98, 0.99, True, False)],
)
def test_a_target_is_a_limit_from_above_or_from_below(value: float, target: float, least: bool, met: bool) -> None:
    figure = Figure(what="x", value=value, target=target, least=least, command="measure it")
    assert figure.met is met
    (row,) = [line for line in table([figure]).splitlines() if line.startswith("| x")]
    assert ("**missed**" in row) is not met
    assert f"{'>=' if least else '<='} {target:g}" in row
    assert "`measure it`" in row


def test_the_record_gives_the_worst_parity_and_what_sam_keeps() -> None:
    record = {
        "a onnx fp32": Outcome(status="ok", source_cosine=0.99995),
        "a tflite fp32": Outcome(status="ok", source_cosine=0.99992),
        "b tflite fp32": Outcome(status="refused"),
        "a onnx fp16": Outcome(status="ok", source_cosine=0.9991),
        "a onnx int8": Outcome(status="ok", source_cosine=0.5),
        "mobile_sam onnx int8": Outcome(status="ok", agreement={"embedding_cosine": 0.9961}),
        "mobile_sam openvino int8": Outcome(status="failed"),
        "sam_b onnx int8": Outcome(status="ok", encoder_ratio=0.268),
        "sam_b tflite int8": Outcome(status="ok"),  # made before the encoder was weighed
    }
    found = {figure.what: figure for figure in recorded_figures(record, [*record])}
    assert found["float parity, fp32: lowest cosine of 2 cells"].value == 0.99992
    assert found["float parity, fp16: lowest cosine of 1 cells"].value == 0.9991
    met = {what for what, figure in found.items() if figure.met}
    assert met == {
        "float parity, fp32: lowest cosine of 2 cells",
        "MobileSAM encoder, onnx INT8: embedding cosine",
        "SAM ViT-B encoder, onnx: INT8 / float size",
    }


@pytest.mark.parametrize("outcome", [Outcome(status="failed"), Outcome(status="timed out"), None])
def test_a_cell_that_failed_or_was_not_run_misses_its_target(outcome: Outcome | None) -> None:
    record = {"a onnx fp32": Outcome(status="ok", source_cosine=1.0)} | ({"b onnx fp32": outcome} if outcome else {})
    figure = next(recorded_figures(record, ["a onnx fp32", "b onnx fp32"]))
    assert (figure.value, figure.met) == (0.0, False)


def test_a_cosine_is_told_from_its_target() -> None:
    missed = Figure(what="x", value=0.99986, target=0.9999, least=True, command="c")
    assert (missed.shown, missed.met) == ("0.999860", False)
