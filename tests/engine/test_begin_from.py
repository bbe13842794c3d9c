"""A new run begins with the networks of another's best state, and with nothing else of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_toys import difference, saved, tiny_config
from PIL import Image
from test_best_state import run_of

from gan_core.beginning import find_beginning
from gan_core.config import RunConfig, make_config, read_config, write_config
from gan_core.engine.checkpoint import find_checkpoint, read_shared
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.journal import FILE, read
from gan_core.observers import FolderObserver
from gan_core.preparing import check_data
from gan_core.release import load_generator
from gan_core.run import Run, play
from pipelines.launch import configuration, plan

ALONE = World()
OTHERS = {"variant": "sngan", "image_size": 16, "latent": 3, "width_g": 2, "width_d": 2}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose best is at 2 of 4 iterations."""
    torch.set_num_threads(1)
    config = tiny_config(
        tmp_path_factory.mktemp("runs") / "first", "dcgan", ema=0.9, steps=4, evaluate_every=2
    )
    run_of(config, {2: 30.0, 4: 50.0}).play()
    return config.folder


def begun(folder: Path, source: Path, **values: Any) -> RunConfig:
    settings = {"ema": 0.9, "steps": 2, "begin_from": str(source), **values}
    return tiny_config(folder, "dcgan", **settings)


def played(config: RunConfig, checkpoint: Path | None = None) -> dict[str, Any]:
    return play(config, ALONE, FolderObserver(config.folder, ALONE), checkpoint)


def step_0(config: RunConfig) -> Path:
    return config.folder / "checkpoints" / "step_00000000"


def test_it_begins_with_networks_buffers_and_averages_of_the_best_and_nothing_else(
    source: Path, tmp_path: Path
) -> None:
    config = begun(tmp_path / "run", source)
    played(config)
    best, here = saved(find_beginning(source)), saved(step_0(config))
    fresh = Run(tiny_config(tmp_path / "fresh", "dcgan", ema=0.9, steps=2), ALONE, Observing())
    there, now = best["state"]["game"], here["state"]["game"]
    assert there["step"] == 2
    assert any("running_mean" in name for name in there["networks"])
    assert difference(there["networks"], now["networks"]) == []
    assert difference(best["rank_0"]["buffers"], here["rank_0"]["buffers"]) == []
    wanted = fresh.game.state_dict()
    for name, player in wanted["players"].items():
        player["averages"] = there["players"][name]["averages"]
    assert difference(wanted | {"networks": now["networks"]}, now) == []
    assert difference(fresh.game.rank_state()["random"], here["rank_0"]["random"]) == []
    assert (here["state"]["history"], here["state"]["best"]) == ([], None)
    # So its samples are those of the other's generator.
    index = torch.arange(9)
    expected = load_generator(source).generate(index)
    assert torch.equal(load_generator(step_0(config)).generate(index), expected)


class Observing(FolderObserver):
    """Says nothing to anybody."""

    def __init__(self) -> None:
        super().__init__(Path("nowhere"), World(rank=1))


def test_what_it_has_begun_from_is_told_everywhere(source: Path, tmp_path: Path) -> None:
    config = begun(tmp_path / "run", source)
    played(config)
    kept = read_config(config.folder / "config.yaml")
    told = {"run": "first", "step": 2, "metric": "fid", "value": 30.0}
    assert kept["begin_from"] == str(source / "best" / "0001_step_00000002")
    assert kept["begun_from"] == told
    events = [event for event, _ in read(config.folder / FILE)]
    assert next(e for e in events if e["kind"] == "start")["begun_from"] == told
    (tag,) = [e["value"] for e in events if e.get("name") == "begun_from"]
    assert tag == "first at step 2, fid 30"


def test_a_resumed_run_does_not_need_the_other_any_more(source: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(source, tmp_path / "first"))
    config = begun(tmp_path / "run", other)
    played(config)
    whole = begun(tmp_path / "whole", other, steps=4)
    played(whole)
    shutil.rmtree(other)
    shutil.rmtree(config.folder / "checkpoints" / "step_00000002")  # killed before it
    words = f"--resume {config.folder} --steps 4"
    longer, resume = plan(words.split())
    assert longer is not None
    assert resume
    check_data(longer, resumed=True)
    checkpoint = find_checkpoint(longer.folder)
    assert checkpoint == step_0(config)
    played(longer, checkpoint)
    ends = [saved(f / "checkpoints" / "step_00000004") for f in (longer.folder, whole.folder)]
    assert difference(*ends) == []
    starts = [e for e, _ in read(config.folder / FILE) if e["kind"] == "start"]
    assert [start["begun_from"]["step"] for start in starts] == [2, 2]
    # From Python too, where the configuration names the other as the user does.
    again = begun(tmp_path / "run", other, steps=5)
    assert played(again, find_checkpoint(again.folder))["step"] == 5
    assert read_config(again.folder / "config.yaml")["begin_from"] == longer.begin_from


def test_a_configuration_of_which_the_beginning_was_taken_tells_of_none(
    source: Path, tmp_path: Path
) -> None:
    told = {"run": "first", "step": 2}
    config = begun(tmp_path / "run", source, begin_from=None, begun_from=told)
    played(config)
    assert read_config(config.folder / "config.yaml")["begun_from"] == {}
    start = next(e for e, _ in read(config.folder / FILE) if e["kind"] == "start")
    assert start["begun_from"] is None
    file = tmp_path / "edited.yaml"
    write_config(config, file)
    planned, _ = plan(["--config", str(file), "--name", "another"])
    assert planned is not None
    assert planned.begun_from == {}


def test_an_average_that_the_other_lacks_begins_at_its_weights(
    source: Path, tmp_path: Path
) -> None:
    plain = begun(tmp_path / "plain", source, ema=0.0)
    played(plain)
    config = begun(tmp_path / "run", plain.folder)
    played(config)
    game = read_shared(step_0(config), torch.device("cpu"))["game"]
    average = game["players"]["generator"]["averages"]["generator"]
    live = [v for n, v in game["networks"].items() if n.startswith("generator.")]
    assert average["updates"] == 0
    weights = [
        v for v in live if any(v.shape == a.shape and torch.equal(v, a) for a in average["average"])
    ]
    assert len(weights) >= len(average["average"])


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"width": 3}, r"generator\S+ is \(.*\) there and \(.*\) here \(width: 2 there, 3 here\)"),
        ({"latent": 5}, r"generator\S+ is \(.*\) there and .* here \(latent: 3 there, 5 here\)"),
        (OTHERS, r"\(64, 3\) there and \(32, 3\) here \(variant: dcgan there, sngan here\)"),
    ],
    ids=["width", "latent", "variant"],
)
def test_other_networks_are_refused_in_one_line_before_anything_is_computed(
    values: dict[str, Any], told: str, source: Path, tmp_path: Path
) -> None:
    given = begun(tmp_path / "run", source).to_dict()
    own = {} if "variant" in values else given["options"]
    config = make_config({**given, "options": {}, **own, **values})
    with pytest.raises(UserError, match=told) as caught:
        check_data(config)
    assert str(caught.value).startswith(f"cannot begin from {source}/best/0001_step_00000002: ")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=told):
        played(config)
    assert not (config.folder / "checkpoints").exists()


def test_other_data_are_named_where_they_are_why_networks_do_not_fit(
    source: Path, tmp_path: Path
) -> None:
    coloured = {"data": "folder", "data_root": str(tmp_path / "red"), "extractor": "none"}
    (tmp_path / "red").mkdir()
    for number in range(30):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(tmp_path / "red" / f"{number}.png")
    config = begun(tmp_path / "run", source, **coloured)
    with pytest.raises(
        UserError,
        match=r"data: images of 1 x 8 x 8 in 10 classes there, images of 3 x 16 x 16 here\)",
    ):
        check_data(config)


def test_classes_of_other_names_are_told_as_it_begins(source: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(source, tmp_path / "other"))
    (described,) = (other / "best").glob("*/generator.json")
    told = json.loads(described.read_text())
    told["spec"]["class_names"][3] = "drei"
    described.write_text(json.dumps(told))
    for folder, lines in ((source, []), (other, ["'drei' is '3' now"])):
        config = begun(tmp_path / folder.name / "run", folder)
        played(config)
        warned = [e["text"] for e, _ in read(config.folder / FILE) if e.get("level") == "warning"]
        found = [text.rpartition(": ")[2] for text in warned if "classes go by number" in text]
        assert found == lines


def test_what_is_meant_by_a_run_s_name_its_folder_and_a_checkpoint(
    source: Path, tmp_path: Path
) -> None:
    best = source / "best" / "0001_step_00000002"
    last = source / "checkpoints" / "step_00000004"
    words = f"dcgan --workers 0 --width 2 --storage {source.parent} --begin-from".split()
    for place, meant in {
        "first": best,
        str(source): best,
        str(last): last,
        str(best): best,
        str(best.parent): best,
    }.items():
        config, _ = plan([*words, place])
        assert config is not None
        assert config.begin_from == str(meant)
    assert config.begun_from == {"run": "first", "step": 2, "metric": "fid", "value": 30.0}
    copy = Path(shutil.copytree(source, tmp_path / "copy"))
    # A run that plays on may have a better state between the command and the workers' start.
    later = (copy / "best" / "0001_step_00000002").rename(copy / "best" / "0002_step_00000004")
    assert find_beginning(copy / "best" / "0001_step_00000002") == later
    shutil.rmtree(copy / "best")
    assert find_beginning(copy) == copy / "checkpoints" / "step_00000004"


def test_a_run_begins_from_the_last_state_of_a_searchs_trial(source: Path, tmp_path: Path) -> None:
    trial = tmp_path / "search" / "trial_0001"
    for number in (9, 10, 11):
        state = source / "checkpoints" / "step_00000004"
        shutil.copytree(state, trial / f"checkpoint_{number:06d}")
    (trial / "checkpoint_000011" / "state.pt").write_bytes(b"")
    assert find_beginning(trial) == trial / "checkpoint_000010"
    (tmp_path / "search" / "config.yaml").write_text("trials: 4\n")
    (trial / "config.yaml").write_text("variant: dcgan\n")
    told = r"trial_0001 is a trial of the search search: go on with .* tune --resume search`, or"
    with pytest.raises(UserError, match=told):
        plan(["--resume", str(trial), "--storage", str(tmp_path)])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("dcgan --begin-from frist", "no run 'frist' in .*: did you mean 'first'"),
        ("dcgan --begin-from {empty}", "cannot begin from .*: it holds no whole checkpoint"),
        ("dcgan --begin-from {search}", "is a search"),
        ("--resume first --begin-from first", "--begin-from is for a new run"),
    ],
)
def test_a_wrong_beginning_is_one_line(words: str, told: str, source: Path, tmp_path: Path) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "config.yaml").write_text("trials: 4\n")
    (tmp_path / "empty").mkdir()
    words = words.format(empty=tmp_path / "empty", search=tmp_path / "search")
    with pytest.raises(UserError, match=told) as caught:
        plan([*words.split(), "--workers", "0", "--storage", str(source.parent)])
    assert "\n" not in str(caught.value)


def test_a_search_takes_no_beginning(source: Path) -> None:
    words = f"dcgan --workers 0 --storage {source.parent} --begin-from first"
    with pytest.raises(UserError, match="--begin-from is for `train`"):
        configuration(words.split(), "tune")
