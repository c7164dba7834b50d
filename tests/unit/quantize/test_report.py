"""The report: well-formed, escaped, nothing loaded, every attempt in it; and ``quantization.json``."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgecv.errors import BundleError, EdgeCVError
from edgecv.media.images import write_image
from edgecv.quantize.gate.worst import image_agreement, worst_images
from edgecv.quantize.record import (
    Attempt,
    BoxRow,
    CalibrationRecord,
    Check,
    ClassLoss,
    Comparison,
    FormatRecord,
    Labelled,
    LayerLoss,
    LayerRounding,
    QuantizationRecord,
    RoundingRecord,
    ThresholdRecord,
    WorstImage,
    parse_record,
    write_record,
)
from edgecv.quantize.report.charts import Point, jpeg_size_wh, pareto, ticks, unmatched
from edgecv.quantize.report.markup import Markup, element
from edgecv.quantize.report.report import report_html, write_report
from edgecv.results import Classification, Detections
from tests.conftest import CHECKOUT

EVIL = "<script>alert('x')</script> & \"quoted\" 'single' --> ]]> {0} %s $x \x00\u202e"


class Tree(HTMLParser):
    """Closes every tag, or fails; keeps text, tags and attributes."""

    VOID = ("meta", "img", "br")

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs)
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text += data


def jpeg(tmp_path: Path, width: int = 64, height: int = 48) -> bytes:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    write_image(tmp_path / "x.jpg", image)
    return (tmp_path / "x.jpg").read_bytes()


def box(label: str = "person", left: float = 10, confidence: float = 0.9) -> BoxRow:
    return BoxRow(xyxy=(left, 5, left + 30, 40), confidence=confidence, label=label)


def labelled(drop: float = 0.1, classes: tuple[ClassLoss, ...] = ()) -> Labelled:
    return Labelled(
        metric="map50_95",
        images=64,
        float_score=0.436,
        int8_score=0.436 - drop / 100,
        drop=drop,
        low=drop - 0.6,
        high=drop + 0.6,
        more={"float_map50": 0.602},
        classes=classes,
    )


def attempt(recipe: str, passed: bool, f1: float, **more) -> Attempt:
    check = Check(metric="f1_50", value=f1, least=0.9, most=1.0, passed=passed)
    return Attempt(recipe=recipe, checks=(check,), passed=passed, **more)


def full_record(data: bytes, text: str = "person") -> QuantizationRecord:
    classes = (ClassLoss(label=text, float_score=0.5, int8_score=0.4, count=9),)
    worst = WorstImage(
        name=text, agreement=0.3, jpeg=data, scale=0.5, float_boxes=(box(text), box(text, 90)), int8_boxes=(box(text),)
    )
    onnx = FormatRecord(
        format="onnx",
        float_latency_ms=89.2,
        float_bytes=12_800_000,
        attempts=(
            attempt("ort-s8s8", False, 0.875, reason=text, latency_ms=127.0, bytes=3_400_000),
            attempt("ort-u8s8", True, 0.924, labelled=labelled(classes=classes), latency_ms=33.9, bytes=3_400_000),
        ),
        chosen="ort-u8s8",
        layers=(LayerLoss(name=text, sqnr_db=12.0, float_cost_ms=1.5), LayerLoss(name="b", sqnr_db=40.0)),
        worst=(worst,),
    )
    tflite = FormatRecord(
        format="tflite",
        float_latency_ms=95.0,
        float_bytes=12_000_000,
        attempts=(attempt("litert-static", False, 0.5, reason="f1_50 0.500 (limit 0.85)"),),
        chosen="",
    )
    return QuantizationRecord(
        model=text,
        source=text,
        task="detect",
        calibration=CalibrationRecord(
            images=128,
            held_out=32,
            sha256="ab" * 32,
            source=text,
            warnings=(text,),
            facts={"brightness": 116.0, text: 2.0},
        ),
        formats=(onnx, tflite),
        threshold=ThresholdRecord(before=0.25, after=0.24, reason=text),
        machine=text,
        tools={text: "1.0"},
    )


def small_record() -> QuantizationRecord:
    form = FormatRecord(format="onnx", float_latency_ms=10.0, float_bytes=100, attempts=(), chosen="")
    calibration = CalibrationRecord(images=0, held_out=0, sha256="", source="")
    return QuantizationRecord(model="m", source="m.pt", task="classify", calibration=calibration, formats=(form,))


def test_the_report_is_well_formed_and_loads_nothing(tmp_path: Path) -> None:
    write_report(full_record(jpeg(tmp_path)), tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    tree = Tree(html)
    assert "script" not in tree.tags
    assert not {"link", "iframe", "object", "embed"} & set(tree.tags)
    links = [value for name, value in tree.attributes if name in ("href", "src", "xlink:href")]
    assert links
    assert all(str(value).startswith(("data:image/jpeg;base64,", "#")) for value in links)
    assert not re.search(r"url\(|@import|https?:", html)
    assert "default-src 'none'" in str(dict(tree.attributes).get("content")) or "default-src" in html
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html
    assert (CHECKOUT / "quantize/report/report.css").read_text() in html


def test_the_body_is_well_formed_xml_too(tmp_path: Path) -> None:
    """Stricter than HTML: SVG that a browser would repair is not accepted."""
    html = report_html(full_record(jpeg(tmp_path), EVIL))
    body = html[html.index("<body>") : html.index("</html>")]
    ET.fromstring(body)


def test_text_from_outside_stays_text(tmp_path: Path) -> None:
    tree = Tree(report_html(full_record(jpeg(tmp_path), EVIL)))
    assert "script" not in tree.tags
    assert not [name for name, _ in tree.attributes if name.startswith("on")]
    shown = EVIL.replace("\x00", r"\x00").replace("\u202e", r"\u202e")
    # Title, heading, verdict; refused recipe; class; layer; image; three boxes; calibration; threshold; machine ...
    assert tree.text.count(shown) >= 14
    ids = [value for name, value in tree.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_every_attempt_is_told_and_drawn(tmp_path: Path) -> None:
    record = full_record(jpeg(tmp_path))
    html = report_html(record)
    text = Tree(html).text
    for form in record.formats:
        for each in form.attempts:
            assert text.count(each.recipe) >= 2  # in the table and as the title of its mark
    marks = re.findall(r'class="mark (\w+)"', html)
    assert sorted(marks) == ["chosen", "float", "float", "refused", "refused"]
    assert "not timed" in text


def test_the_verdict_says_it_in_words(tmp_path: Path) -> None:
    text = Tree(report_html(full_record(jpeg(tmp_path)))).text.replace("\N{NO-BREAK SPACE}", " ")
    for words in (
        "ONNX: INT8 is ready (recipe ort-u8s8). It takes 33.9 ms per image where float takes 89.2 ms: 2.6 times as fast.",
        "Its files take 3.4 MB instead of 12.8 MB.",
        "Against labels it loses 0.1 points of mAP50-95 (43.6 to 43.5). On 64 images the loss lies between -0.5 and 0.7 points "
        "(below zero is a gain); smaller differences cannot be seen. Zero lies within: the difference may be chance alone.",
        "TFLite: no INT8 variant. The one recipe that was tried has not kept what was asked for, so none was written."
        " The last one: f1_50 0.500 (limit 0.85).",
        "It was 0.25 and is now 0.24.",
    ):
        assert words in text


def test_an_attempt_that_is_not_faster_is_said_to_be_so(tmp_path: Path) -> None:
    record = full_record(b"")
    form = msgspec.structs.replace(
        record.formats[0], attempts=(attempt("slow", True, 0.95, latency_ms=100.0),), chosen="slow"
    )
    text = Tree(report_html(msgspec.structs.replace(record, formats=(form,)))).text
    assert "on the machine that converted it is not faster than float. Your device may differ" in text
    on_the_device = msgspec.structs.replace(record, formats=(form,), by_speed=True)
    text = Tree(report_html(on_the_device)).text
    assert "it is not faster than float on this device." in text
    assert "may differ" not in text
    assert "its answers agree with the float model's: same boxes (F1 at IoU 0.5) 0.95, where 1 is the same" in text


def test_what_is_missing_is_left_out() -> None:
    text = Tree(report_html(small_record())).text
    for heading in (
        "Accuracy of",
        "Most sensitive",
        "Worst images",
        "Confidence threshold",
        "What was tried",
        "What speed",
    ):
        assert heading not in text
    assert "ONNX: no INT8 variant" in text


def test_an_image_that_is_no_jpeg_is_left_out() -> None:
    html = report_html(full_record(b"no image"))
    assert "Worst images" not in html


def test_the_unlimited_and_the_infinite_do_not_break_the_page(tmp_path: Path) -> None:
    record = full_record(jpeg(tmp_path))
    checks = (
        Check(metric="f1_50", value=float("nan"), least=0.9, most=float("inf"), passed=False),
        Check(metric="shown", value=0.5, least=0.0, most=0.0, passed=True, limited=False),
    )
    layers = (LayerLoss(name="same", sqnr_db=float("inf")), LayerLoss(name="lost", sqnr_db=float("-inf")))
    form = msgspec.structs.replace(
        record.formats[0], attempts=(Attempt(recipe="r", checks=checks, passed=False),), layers=layers
    )
    html = report_html(msgspec.structs.replace(record, formats=(form,)))
    body = html[html.index("<body>") : html.index("</html>")]
    for node in ET.fromstring(body).iter():
        for name in ("x", "y", "width", "height", "cx", "cy"):
            assert "nan" not in node.attrib.get(name, "") and "inf" not in node.attrib.get(name, "")


def test_a_report_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(EdgeCVError, match="cannot be written") as caught:
        write_report(small_record(), tmp_path / "missing" / "report.html")
    assert caught.value.hint


@pytest.mark.parametrize("text", ["<b>", "a&b", "\"'", "</title>", "\ud800", "\x1b[0m"])
def test_markup_escapes_texts_and_attributes(text: str) -> None:
    made = element("p", text, title=text)
    made.encode("utf-8")
    assert Tree(made).tags == ["p"]
    assert element("p", Markup("<br>")) == "<p><br></p>"


@pytest.mark.parametrize(
    ("low", "high"), [(0, 96.3), (0, 0.0011), (0.85, 1.005), (0.9989, 1.0011), (-5, 5), (43.1, 43.9)]
)
def test_ticks_are_few_and_round(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 3 <= len(found) <= 9
    assert all(low - 1e-9 <= value <= high + 1e-9 for value in found)
    assert all(len(f"{value:g}") <= 7 for value in found)


def test_numbers_of_crowded_points_do_not_cover_each_other() -> None:
    points = [
        Point(number=str(at), title="t", kind="passed", latency_ms=30 + at * 0.01, value=0.92 + at * 1e-4)
        for at in range(1, 9)
    ]
    points.append(Point(number="ONNX", title="t", kind="float", latency_ms=89.0, value=1.0))
    drawn = ET.fromstring(pareto(points, "agreement"))
    places = [
        (float(node.attrib["x"]), float(node.attrib["y"]))
        for node in drawn.iter("text")
        if node.attrib.get("class") == "number"
    ]
    assert len(places) == 9
    near = [
        (a, b) for at, a in enumerate(places) for b in places[:at] if abs(a[0] - b[0]) < 8 and abs(a[1] - b[1]) < 12
    ]
    assert near == []


def test_one_float_point_alone_is_drawn() -> None:
    assert pareto([], "x") == ""
    ET.fromstring(pareto([Point(number="1", title="", kind="passed", latency_ms=None, value=1.0)], "x"))


def test_boxes_without_counterpart_are_found() -> None:
    own = (box(), box("dog", 100), box(left=12))
    assert unmatched(own, (box(),)) == {1, 2}
    assert unmatched((), (box(),)) == set()
    assert unmatched((box(),), ()) == {0}
    flat = BoxRow(xyxy=(3, 3, 3, 3), confidence=0.5, label="x")
    assert unmatched((flat,), (flat,)) == {0}


def test_the_size_of_a_jpeg_is_read_from_its_header(tmp_path: Path) -> None:
    data = jpeg(tmp_path, 123, 45)
    assert jpeg_size_wh(data) == (123, 45)
    for cut in range(0, len(data), 37):
        assert jpeg_size_wh(data[:cut]) in (None, (123, 45))
    assert jpeg_size_wh(b"\x89PNG") is None


def test_the_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = full_record(jpeg(tmp_path), EVIL)
    write_record(record, tmp_path / "quantization.json")
    assert parse_record((tmp_path / "quantization.json").read_bytes(), tmp_path / "quantization.json") == record
    assert report_html(
        parse_record((tmp_path / "quantization.json").read_bytes(), tmp_path / "quantization.json")
    ) == report_html(record)


def test_an_infinite_figure_survives_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "q.json"
    form = small_record().formats[0]
    silent = msgspec.structs.replace(form, layers=(LayerLoss(name="l", sqnr_db=float("inf")),))
    write_record(msgspec.structs.replace(small_record(), formats=(silent,)), path)
    assert parse_record(path.read_bytes(), path).formats[0].layers[0].sqnr_db > 1e300
    broken = msgspec.structs.replace(form, layers=(LayerLoss(name="l", sqnr_db=float("nan")),))
    with pytest.raises(EdgeCVError, match=r"formats\[0\]\.layers\[0\]\.sqnr_db is not a number"):
        write_record(msgspec.structs.replace(small_record(), formats=(broken,)), path)


def edited(change) -> bytes:
    content = json.loads(msgspec.json.encode(small_record()))
    change(content)
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "damaged"),
        (b"{", "damaged"),
        (b"[]", "damaged"),
        (b"\xff\xfe", "damaged"),
        (edited(lambda c: c.update(extra=1)), "extra"),
        (edited(lambda c: c.pop("task")), "task"),
        (edited(lambda c: c["formats"][0].update(float_bytes="x")), r"formats\[0\]\.float_bytes|float_bytes"),
        (edited(lambda c: c.update(schema=99, extra=1)), "newer than this EdgeCV"),
    ],
)
def test_a_damaged_record_names_what_is_wrong(tmp_path: Path, data: bytes, named: str) -> None:
    with pytest.raises(BundleError, match=named) as caught:
        parse_record(data, tmp_path / "q.json")
    assert caught.value.hint


def test_a_record_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EdgeCVError, match="cannot be written"):
        write_record(small_record(), tmp_path / "missing" / "q.json")


def found(*boxes: tuple[float, float, float, float]) -> Detections:
    return Detections(
        xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        confidence=np.full(len(boxes), 0.9, np.float32),
        class_id=np.zeros(len(boxes), np.int64),
    )


def test_the_worst_images_come_first_and_are_small(tmp_path: Path) -> None:
    paths = []
    for number in range(4):
        paths.append(tmp_path / f"{number}.png")
        write_image(paths[-1], np.full((600, 960, 3), number, np.uint8))
    whole, half = (0, 0, 100, 100), (0, 0, 100, 60)
    teacher = [found(whole), found(whole), found(), found(whole, (200, 200, 300, 300))]
    student = [found(whole), found(half), found(), found()]
    worst = worst_images(paths, teacher, student, ("person",))
    assert [each.name for each in worst] == ["3.png", "1.png", "0.png"]
    assert [each.agreement for each in worst] == pytest.approx([0.0, 0.6, 1.0])
    assert all(jpeg_size_wh(each.jpeg) == (480, 300) for each in worst)
    assert worst[0].scale == 0.5
    assert [len(worst[0].float_boxes), len(worst[0].int8_boxes)] == [2, 0]
    assert worst[0].float_boxes[0].label == "person"
    assert len(worst_images(paths, teacher, student, (), count=1)) == 1


def test_small_images_are_not_enlarged_and_classes_have_no_boxes(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.zeros((20, 30, 3), np.uint8))
    worst = worst_images([tmp_path / "a.png"], [found((0, 0, 9, 9))], [found()], ())
    assert jpeg_size_wh(worst[0].jpeg) == (30, 20)
    assert worst[0].float_boxes[0].label == "0"
    said = Classification(class_id=np.array([1]), confidence=np.array([0.5], np.float32))
    assert worst_images([tmp_path / "a.png"], [said], [said], ()) == ()
    assert image_agreement(found(), found()) == 1.0


def test_what_is_said_about_a_chosen_recipe_is_in_the_verdict() -> None:
    record = full_record(b"")
    best = attempt("slow", True, 0.95, latency_ms=100.0, reason="it is slower than float here")
    form = msgspec.structs.replace(record.formats[0], attempts=(best,), chosen="slow")
    text = Tree(report_html(msgspec.structs.replace(record, formats=(form,)))).text
    assert "Note: it is slower than float here." in text


def test_recipes_that_were_compared_are_told_with_their_intervals(tmp_path: Path) -> None:
    record = full_record(jpeg(tmp_path))
    same = Comparison(
        first="ort-u8s8",
        second="ort-u8s8-float-stem",
        seeds=3,
        images=32,
        error_ratio=0.98,
        error_low=0.9,
        error_high=1.06,
        f1_gain=0.001,
        f1_low=-0.01,
        f1_high=0.012,
    )
    better = msgspec.structs.replace(same, second="ort-u8s8-gptq", error_ratio=0.5, error_high=0.6, shown="better")
    form = msgspec.structs.replace(record.formats[0], comparisons=(same, better))
    page = report_html(msgspec.structs.replace(record, formats=(form,))).replace(' class="long"', "")
    assert "ort-u8s8-float-stem against ort-u8s8</td><td>0.98 times (0.90 to 1.06)" in page
    assert "<td>no difference shown</td>" in page
    assert "<td>ort-u8s8-gptq is better</td>" in page
    assert "3 seeds and judged on the same 32" in page
    assert "compared</h2>" not in report_html(record)


def test_the_rounding_of_weights_is_told_with_the_layers_that_were_left(tmp_path: Path) -> None:
    record = full_record(jpeg(tmp_path))
    layers = (
        LayerRounding(name="a", nearest_error=0.4, error=0.1),
        LayerRounding(name="b", nearest_error=0.0, error=0.0),
        LayerRounding(name="up<1>", reason="transposed convolutions are rounded to the nearest step"),
    )
    form = msgspec.structs.replace(record.formats[0], rounding=RoundingRecord(grid="int8", layers=layers))
    page = report_html(msgspec.structs.replace(record, formats=(form,))).replace(' class="long"', "")
    assert "The weights of 2 of 3 layers were rounded before the export" in page
    assert "That leaves 25% of the squared error" in page
    assert "up&lt;1&gt;</td><td>transposed convolutions are rounded to the nearest step</td>" in page
    assert "Rounded weights" not in report_html(record)
