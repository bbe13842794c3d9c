"""docs/extending.md: every block is run, in its order, in a folder of its own."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gan_core
import gan_core.metrics.extractors
import gan_core.variants
from gan_core.data.sources import SOURCES
from gan_core.losses import LOSSES
from gan_core.metrics.features import EXTRACTORS
from gan_core.variant import VARIANTS
from pipelines.__main__ import main
from pipelines.tune import plan, split
from tune_spaces import space_of

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
COMMAND = "python -m pipelines "


@pytest.fixture
def _as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    registries: list[Any] = [VARIANTS, SOURCES, LOSSES, EXTRACTORS]
    before, modules = [dict(registry._entries) for registry in registries], set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for registry, entries in zip(registries, before, strict=True):
        registry._entries = entries
    for name in {n for n in set(sys.modules) - modules if n.startswith("own_")}:
        del sys.modules[name]


def command(line: str) -> None:
    """Run the words of one command; a search is only planned, as the rest needs Ray."""
    assert line.startswith(COMMAND), line
    words = line.removeprefix(COMMAND).split()
    if words[0] == "tune":
        study = plan(*split(words[1:]))
        assert set(space_of(study.run.variant).dimensions) <= set(study.run.options)
    else:
        assert main(words) == 0, line


@pytest.mark.usefixtures("_as_it_was")
def test_every_block_of_the_page_does_what_it_says(tmp_path: Path) -> None:
    assert {kind for kind, _ in BLOCKS} == {"python", ""}
    names: dict[str, Any] = {}
    for kind, text in BLOCKS:
        file = re.match(r"# (\w+\.py)\n", text)
        if file:
            (tmp_path / file[1]).write_text(text)
        elif kind == "python":
            exec(compile(text, str(PAGE), "exec"), names)
        else:
            for line in text.splitlines():
                command(line)
    assert len(names["losses"]) >= 10
    assert names["points"].shape == (1000, 2)
    assert names["images"].shape == (8, 1, 16, 16)
    assert (tmp_path / "generator.pt2").exists()


def test_the_page_is_linked_and_names_what_there_is() -> None:
    assert "docs/extending.md" in (PAGE.parents[1] / "README.md").read_text()
    assert {name for name in gan_core.__all__ if not hasattr(gan_core, name)} == set()
    assert set(gan_core.__all__) == set(gan_core._HOME_OF) <= set(dir(gan_core))
