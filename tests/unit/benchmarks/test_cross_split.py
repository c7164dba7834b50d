from __future__ import annotations

import shutil

from edgecv.benchmarks.lab.cross_split import CrossSplit, split_by_content


def _files(folder, count):
    folder.mkdir()
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]))
    return paths


def test_halves_are_even_apart_and_complete(tmp_path):
    paths = _files(tmp_path / "a", 9)
    first, second = split_by_content(paths)
    assert abs(len(first) - len(second)) <= 1
    assert sorted([*first, *second]) == paths


def test_the_split_depends_on_content_alone(tmp_path):
    paths = _files(tmp_path / "a", 8)
    renamed = [shutil.copy(path, tmp_path / f"{9 - number}.png") for number, path in enumerate(paths)]
    wanted = [path.read_bytes() for path in split_by_content(paths)[0]]
    assert [path.read_bytes() for path in split_by_content(renamed)[0]] == wanted


def test_a_copy_is_not_on_both_sides(tmp_path):
    paths = _files(tmp_path / "a", 4)
    copies = [shutil.copy(path, tmp_path / f"copy-{path.name}") for path in paths]
    first, second = split_by_content([*paths, *copies])
    assert {path.read_bytes() for path in first}.isdisjoint(path.read_bytes() for path in second)
    assert len(first) + len(second) == 4


def test_the_loss_is_float_minus_int8():
    found = CrossSplit(
        images=2,
        float_map={"map50_95": 0.5, "map50": 0.75},
        int8_map={"map50_95": 0.49, "map50": 0.74},
        recipes=("a", "b"),
    ).as_dict()
    assert (found["loss_map50_95"], found["loss_map50"]) == (0.01, 0.01)
