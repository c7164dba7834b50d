"""The page of the demo: what stands in it is text, and its looks are those of the style sheet."""

from __future__ import annotations

import base64
from pathlib import Path

from edgecv.benchmarks.demo.report import Image, write_report
from tests.conftest import CHECKOUT

EVIL = "<script>alert(\"x\")</script> & 'single' {{ 7 * 7 }} {% raw %} \x1b\u202e"


def test_texts_are_escaped_and_the_style_sheet_is_whole(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", [(EVIL, EVIL)], [Image(title=EVIL, jpeg=b"\xff\xd8 image")])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 4
    assert page.count("{{ 7 * 7 }} {% raw %} \\x1b\\u202e") == 4
    assert base64.b64encode(b"\xff\xd8 image").decode() in page
    assert (CHECKOUT / "benchmarks/demo/report.css").read_text() in page
