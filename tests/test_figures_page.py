"""docs/figures.md names every figure, and says which way is good as the program has it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gan_core.metrics.names import DIRECTIONS

PAGE = (Path(__file__).parent.parent / "docs" / "figures.md").read_text()
TOLD: dict[str, str] = {}
for _row in re.findall(r"^\| (`.*?) \| (.*?) \|", PAGE, flags=re.M):
    _names = [name.removesuffix("_...") for name in re.findall(r"`([\w.]+)`", _row[0])]
    _words = _row[1].split(", ")
    for _place, _name in enumerate(_names):
        TOLD[_name] = _words[min(_place, len(_words) - 1)]
ASIDE = re.compile(r"(_input|_bicubic|_real|_inverse|^mixture_score|^parzen_.*)$")


@pytest.mark.parametrize("name", [name for name in DIRECTIONS if not ASIDE.search(name)])
def test_every_figure_is_on_the_page_with_its_direction(name: str) -> None:
    good = DIRECTIONS[name]
    assert name in TOLD
    if good is not None and TOLD[name] not in ("1", "like the real"):
        assert TOLD[name] == good
