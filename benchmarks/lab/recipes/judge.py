"""INT8 recipes judged on pictures that calibration never saw, with paired 95 % intervals over pictures and seeds.

``python -m edgecv.benchmarks.lab judge_recipes SOURCE DATA [--format F] [--recipe R] [--seeds 3] [--calib FOLDER] [--bundles DIR]``
"""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecv._internal.atomic import new_file
from edgecv.benchmarks.lab.recipes.asked import FORMATS, JudgeOptions
from edgecv.benchmarks.lab.recipes.judging import Verdicts, judge_recipes
from edgecv.benchmarks.lab.recipes.tables import (
    Table,
    differences_table,
    document,
    figures_table,
    headline,
    lines,
    markdown,
    picture_lines,
)
from edgecv.cli.console import print_json, print_table, progress_for, say


def main() -> None:
    given = _parser().parse_args()
    asked = JudgeOptions(
        formats=tuple(given.format),
        recipes=tuple(given.recipe),
        seeds=given.seeds,
        first_seed=given.first_seed,
        calibration=given.calib,
        split=given.split,
        imgsz=given.imgsz,
        limit=given.limit,
        bundles=given.bundles,
        random_weights=given.random_weights,
        labels=tuple(given.labels.split(",")) if given.labels else (),
        resamples=given.resamples,
        map_resamples=given.map_resamples,
    )
    with progress_for(given.json) as progress:
        found = judge_recipes(given.source, given.data, asked, progress)
    if given.jsonl is not None:
        with new_file(given.jsonl) as file:
            file.writelines(picture_lines(found))
    _print(found, given.json, given.markdown)


def _print(found: Verdicts, as_json: bool, as_markdown: bool) -> None:
    if as_json:
        print_json(document(found))
    elif as_markdown:
        print(markdown(found), end="")
    else:
        _print_table(headline(found), figures_table(found))
        if any(one.against for one in found.judged):
            _print_table("Against the first recipe of the format", differences_table(found))
        for line in lines(found):
            say(line)


def _print_table(title: str, table: Table) -> None:
    print_table(title, *table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edgecv.benchmarks.lab judge_recipes", description=__doc__)
    parser.add_argument("source", type=Path, help="what `edgecv convert` takes")
    parser.add_argument("data", type=Path, help="images/ and labels/ in YOLO form, data.yaml, or folders of classes")
    _add_recipes(parser)
    _add_pictures(parser)
    parser.add_argument("--bundles", type=Path, help="keep converted bundles here, and take those of an earlier run")
    parser.add_argument("--resamples", type=int, default=2000, help="draws of the bootstrap (default 2000)")
    parser.add_argument("--map-resamples", type=int, default=400, help="draws for mAP, which take longer (400)")
    parser.add_argument("--jsonl", type=Path, help="a line for each recipe, seed and picture")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="one JSON document on stdout")
    shown.add_argument("--markdown", action="store_true", help="tables in Markdown")
    return parser


def _add_recipes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", action="append", default=[], help=f"{', '.join(FORMATS)}; repeatable")
    parser.add_argument(
        "--recipe", action="append", default=[], help="by name or recipe.json; repeatable; the first is the measure"
    )
    parser.add_argument("--seeds", type=int, default=3, help="conversions of each recipe, with another seed each (3)")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--imgsz", type=int, help="input size in pixels")
    parser.add_argument("--random-weights", action="store_true", help="SOURCE is an architecture, such as resnet18")
    parser.add_argument("--labels", help="class names of a classifier that has none, with commas")


def _add_pictures(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--calib", type=Path, help="other pictures to calibrate on (default: the data in two halves)")
    parser.add_argument("--split", type=int, default=0, help="another number makes other halves")
    parser.add_argument("--limit", type=int, help="at most so many pictures, chosen by their content")
