"""``edgecv compare`` holds reports of ``edgecv bench --json`` against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecv.cli.console import print_json, print_table, say
from edgecv.cli.options import Json
from edgecv.errors import ConfigError


def compare(
    reports: Annotated[
        list[Path], typer.Argument(help="Two or more files of edgecv bench --json; the first is the measure.")
    ],
    allow: Annotated[str, typer.Option(help="What may differ, with commas: device, threads, variant ...")] = "",
    html: Annotated[Path | None, typer.Option(help="Write a page with all of them.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the page.")] = False,
    json: Json = False,
) -> None:
    """Compare reports of edgecv bench: say what differs, and refuse what is not alike (exit code 2)."""
    from edgecv.benchmarks.comparing.compare import compare as compare_reports
    from edgecv.benchmarks.comparing.differences import read_allowed
    from edgecv.benchmarks.comparing.files import read_reports
    from edgecv.benchmarks.page.page import check_page, write_page
    from edgecv.benchmarks.tables.compared import COLUMNS, compared_document, compared_rows

    if len(reports) < 2:
        raise ConfigError("A comparison needs two files.", "edgecv compare BEFORE.json AFTER.json")
    allowed = read_allowed(allow)
    if html is not None:
        check_page(html, force)
    read = [(path, read_reports(path)) for path in reports]
    found = compare_reports(read, allowed)
    if html is not None:
        write_page(html, [report for _, part in read for report in part])
    if json:
        print_json({"compared": compared_document(found)})
        return
    print_table(f"against {reports[0]}", COLUMNS, compared_rows(found))
    for text in dict.fromkeys(one.differs for one in found if one.differs):
        say(f"They differ in {text}.")
