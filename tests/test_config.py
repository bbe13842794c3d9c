"""The configuration: filled in, checked, written, read and compared."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest

from gan_core.config import (
    RunConfig,
    check_resumable,
    import_plugins,
    make_config,
    read_config,
    write_config,
)
from gan_core.errors import UserError


def config(**values: Any) -> RunConfig:
    return make_config({"variant": "dcgan", **values})


def test_the_variant_s_defaults_are_filled_in() -> None:
    made = config()
    assert made.options["batch_size"] == 128
    assert made.options["prior"] == "uniform"
    assert made.options["norm_d"] is None  # left to the data
    assert set(made.options) == {f.name for f in dataclasses.fields(made.game)}
    assert made.data_options == {}


def test_options_stand_beside_the_others_or_in_options() -> None:
    beside, inside = config(width=7, k=3), config(options={"width": 7, "k": 3})
    assert beside == inside
    assert (beside.game.width, beside.game.k) == (7, 3)  # type: ignore[attr-defined]
    assert config(width=7, options={"width": 5}).options["width"] == 7


def test_values_as_typed_are_converted() -> None:
    made = config(**{"batch-size": "32", "log-every": "7", "lr_d": "1e-3", "seed": 4})
    assert made.options["batch_size"] == 32
    assert made.options["lr_d"] == 0.001
    assert (made.log_every, made.seed) == (7, 4)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"variant": "dcgna"}, "unknown variant 'dcgna': did you mean 'dcgan'"),
        ({"widht": 3}, "unknown option 'widht': did you mean 'width'"),
        ({"wokers": 3}, "unknown option 'wokers': did you mean 'workers'"),
        ({"log-evry": 3}, "unknown option 'log_evry': did you mean 'log_every'"),
        ({"options": {"widht": 3}}, "unknown option 'widht': did you mean 'width'"),
        ({"options": 3}, "--options must be a mapping"),
        ({"data_options": [1]}, "--data-options must be a mapping"),
        ({"k": 0}, "--k must be at least 1, not 0"),
        ({"seed": 2**64}, "--seed must be at most 18446744073709551615, not 18446744073709551616"),
        ({"k": 1.5}, "--k must be a whole number, not '1.5'"),
        ({"lr_g": 0}, "--lr-g must be greater than 0"),
        ({"steps": None}, "--steps needs a value"),
        ({"train_split": "test"}, "unknown --train-split 'test': did you mean|choose from"),
        ({"plugins": ["no_such_module_here"]}, "--plugin no_such_module_here cannot be imported"),
        ({3: 4}, "unknown option '3'"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(values: dict[Any, Any], told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        make_config({"variant": "dcgan", **values})
    assert "\n" not in str(caught.value)


def test_a_missing_variant_is_answered_with_all() -> None:
    with pytest.raises(UserError, match=r"choose from: .*dcgan"):
        make_config({})


def test_a_written_configuration_is_read_as_itself(tmp_path: Path) -> None:
    made = config(width=7, plugins=("gan_core.losses",), data_options={"a": 1}, cache="c")
    write_config(made, tmp_path / "config.yaml")
    assert make_config(read_config(tmp_path / "config.yaml")) == made
    assert make_config(made.to_dict()) == made


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "does not exist"),
        (b"a: [1", "cannot be read as YAML"),
        (b"\xff\xfe\x00", "cannot be read as YAML"),
        (b"- 1\n- 2\n", "must hold names and values"),
        (b"", "must hold names and values"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(
    tmp_path: Path, content: bytes | None, told: str
) -> None:
    path = tmp_path / "mine.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"mine\.yaml {told}") as caught:
        read_config(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"seed": 1}, "seed was 0 and is now 1"),
        ({"data": "ring"}, "data was digits and is now ring"),
        ({"data_options": {"a": 1}}, "data_options was {} and is now {'a': 1}"),
        ({"train_split": "train+validation"}, r"train_split was train and is now train\+valid"),
        ({"width": 9}, "width was 128 and is now 9"),
        ({"latent": 9}, "latent was 100 and is now 9"),
        ({"variant": "gan"}, "variant was dcgan and is now gan"),
    ],
)
def test_another_identity_refuses_to_resume_and_is_named(change: dict[str, Any], name: str) -> None:
    with pytest.raises(UserError, match=f"cannot resume: {name}") as caught:
        check_resumable(config(), config(**change))
    assert "\n" not in str(caught.value)


def test_another_schedule_is_told() -> None:
    told = check_resumable(config(), config(steps=5, lr_d=0.001, prior="gaussian"))
    assert sorted(told) == [
        "lr_d: 0.0002 -> 0.001",
        "prior: uniform -> gaussian",
        "steps: 20000 -> 5",
    ]


@pytest.mark.parametrize("variant", ["acgan", "dcgan", "midinet"])
@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (
            {},
            {"gradient_penalty": 10},
            "norm_d was batch and is now layer by --gradient-penalty 10.0 (before: None); a run "
            "keeps its networks and data (give --gradient-penalty 0, leave that out,",
        ),
        (
            {"label_smoothing": 0},
            {"label_smoothing": 0, "loss": "wasserstein", "steps": 5},
            "norm_d was batch and is now layer by --loss wasserstein (before: non-saturating); a "
            "run keeps its networks and data (give --gradient-penalty 0, leave that out,",
        ),
        (
            {"gradient_penalty": 10},
            {"gradient_penalty": 0},
            "norm_d was layer and is now batch by --gradient-penalty 0.0 (before: 10.0); a run "
            "keeps its networks and data (give --norm-d layer, leave that out,",
        ),
    ],
)
def test_a_schedule_that_would_change_the_networks_is_named_with_what_keeps_them(
    before: dict[str, Any], after: dict[str, Any], told: str, variant: str
) -> None:
    old = make_config({"variant": variant, **before})
    with pytest.raises(UserError) as caught:
        check_resumable(old, make_config({"variant": variant, **after}))
    assert str(caught.value) == f"cannot resume: {told} or start a new run)"
    kept = {"norm_d": "layer"} if before.get("gradient_penalty") else {"gradient_penalty": 0}
    changed = check_resumable(old, make_config({"variant": variant, **after, **kept}))
    # None and 0 are one, where the loss asks for nothing.
    told_of_penalty = any("gradient_penalty" in line for line in changed)
    assert told_of_penalty == bool(before.get("gradient_penalty"))


def test_another_place_to_run_is_nobody_s_business() -> None:
    moved = config(workers=8, storage="/elsewhere", name="x", log_every=1, data_root="/data")
    assert check_resumable(config(), moved) == []
    assert check_resumable(config(), config()) == []


def test_where_a_source_keeps_what_it_has_made_is_nobody_s_business() -> None:
    values = {"variant": "dcgan", "data": "folder", "data_root": "/data"}
    old, moved, other = (
        make_config({**values, "data_options": {"image_size": 32, **more}})
        for more in ({}, {"picture_cache": "/elsewhere"}, {"channels": 1})
    )
    assert check_resumable(old, moved) == []
    with pytest.raises(UserError, match="data_options was"):
        check_resumable(old, other)


def test_a_folder_is_the_same_however_it_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("encoder", "words"):
        (tmp_path / name).mkdir()
    values = {"variant": "stackgan", "data": "captions", "data_root": "/data"}
    relative, absolute, words, other = (
        make_config({**values, "data_options": {"text_encoder": given}})
        for given in ("encoder", str(tmp_path / "encoder"), "words", str(tmp_path / "words"))
    )
    assert check_resumable(relative, absolute) == []
    assert check_resumable(absolute, relative) == []
    with pytest.raises(UserError, match="data_options was"):
        check_resumable(words, other)  # the word means no folder


def test_options_left_to_the_data_compare_as_such() -> None:
    first = make_config({"variant": "gan"})
    assert first.options["hidden"] is None
    assert check_resumable(first, make_config(first.to_dict())) == []
    with pytest.raises(UserError, match="hidden was None and is now 64"):
        check_resumable(first, make_config({"variant": "gan", "hidden": 64}))


def test_what_a_stage_that_is_not_played_would_be_made_of_may_change() -> None:
    one, two = ({"variant": "stackgan", "data": "captions", "steps_2": n} for n in (0, 5))
    told = check_resumable(make_config(one), make_config({**two, "width_2": 16}))
    assert sorted(told) == ["steps_2: 0 -> 5", "width_2: 128 -> 16"]
    with pytest.raises(UserError, match="width_2 was 128 and is now 16"):
        check_resumable(make_config(two), make_config({**two, "width_2": 16}))


def test_folders_follow_from_storage_and_name(tmp_path: Path) -> None:
    made = config(storage=str(tmp_path), name="run")
    assert made.folder == tmp_path / "run"
    assert made.cache_folder == tmp_path / "cache"
    assert config(storage="s", cache=str(tmp_path)).cache_folder == tmp_path
    with pytest.raises(ValueError, match="needs a name"):
        _ = config().folder


def test_one_plugin_may_be_given_as_a_word(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "plugin_of_a_test.py").write_text("LOADED = True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    made = config(plugins="plugin_of_a_test")
    assert made.plugins == ("plugin_of_a_test",)
    assert sys.modules["plugin_of_a_test"].LOADED
    import_plugins(made.plugins)


def test_a_variant_learns_from_its_own_source_where_none_is_named() -> None:
    assert make_config({"variant": "gan"}).data == "digits"
    assert make_config({"variant": "midinet"}).data == "midi"
    assert make_config({"variant": "pix2pix", "data": "digits"}).data == "digits"
