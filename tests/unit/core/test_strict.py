"""Options that people write: what does not exist is named with the nearest that does."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest

from edgecv._internal.strict import read_struct
from edgecv.errors import ConfigError


class Inner(msgspec.Struct, frozen=True, kw_only=True):
    width: Annotated[int, msgspec.Meta(ge=1)] = 640
    name: str = ""


class Outer(msgspec.Struct, frozen=True, kw_only=True):
    cameras: list[Inner] = []
    page: Inner | None = None
    speed: float = 1.0


def test_tables_and_lists_of_tables_become_structs() -> None:
    read = read_struct({"cameras": [{"width": 3}, {}], "page": {"name": "x"}, "speed": 2}, Outer, "app.toml")
    assert read == Outer(cameras=[Inner(width=3), Inner()], page=Inner(name="x"), speed=2.0)


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ({"sped": 1}, "app.toml has no option 'sped'", "Did you mean 'speed'?"),
        ({"zzz": 1}, "app.toml has no option 'zzz'", "Known: cameras, page, speed."),
        ({"page": {"widht": 1}}, "app.toml, page has no option 'widht'", "Did you mean 'width'?"),
        ({"cameras": [{}, {"nam": "a"}]}, "app.toml, cameras 2 has no option 'nam'", "Did you mean 'name'?"),
    ],
)
def test_what_does_not_exist_is_named_with_the_nearest(given: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_struct(given, Outer, "app.toml")
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    "given", [{"speed": "fast"}, {"cameras": {"width": 1}}, {"cameras": [{"width": 0}]}, {"page": 3}], ids=str
)
def test_a_value_that_does_not_fit_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"app\.toml is wrong"):
        read_struct(given, Outer, "app.toml")


def test_texts_become_numbers_only_where_all_values_are_texts() -> None:
    assert read_struct({"width": "12"}, Inner, "uri", texts=True).width == 12
    with pytest.raises(ConfigError):
        read_struct({"width": "12"}, Inner, "app.toml")
