"""Figures that a search is told to look at and that no trial would have: refused at once."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image
from test_held_out import Invert, Negatives

from gan_core.data.examples import Batch
from gan_core.data.sources import SOURCES
from gan_core.errors import UserError
from gan_core.metrics.names import FigureNames
from gan_core.variant import VARIANTS, Stage
from gan_core.variants.pix2pix import Pix2Pix
from pipelines import cluster
from pipelines.tune import plan, split, tune, tune_command
from pipelines.tuning.figures import Asked
from pipelines.tuning.prepare import Ground, prepare, with_metric
from pipelines.tuning.study import Study


class Named(Invert):
    """It says which figures it has."""

    figure_names = ("l1", "count")


class Sharper(Pix2Pix):
    """It has a figure more than what it is derived from, and does not say so."""

    def figures(self, stage: str, generated: Batch, held_out: Batch) -> dict[str, float]:
        return super().figures(stage, generated, held_out) | {"sharpness": 1.0}


class InTwoStages(Invert):
    """Its second stage has a figure more."""

    def stages(self) -> tuple[Stage, ...]:
        (first,) = super().stages()
        return first, dataclasses.replace(first, name="second")

    def figures(self, stage: str, generated: Batch, held_out: Batch) -> dict[str, float]:
        late = {"late": 1.0} if stage == "second" else {}
        return super().figures(stage, generated, held_out) | late


class OwnMean(Invert):
    """It says of what it has which direction is good."""

    best_by = (("distance", "low"), ("wide_distance_ratio", "high"))


OWN: dict[str, Any] = {
    "named": Named, "unnamed": Invert, "sharper": Sharper, "in_two_stages": InTwoStages,
    "own_mean": OwnMean,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES._entries, "negatives", Negatives)
    for name, variant in OWN.items():
        monkeypatch.setitem(VARIANTS._entries, name, variant)


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(**_: object) -> None:
        raise AssertionError("Ray is started")

    monkeypatch.setattr(cluster, "connected", started)


def planned(words: str, storage: Path) -> Study:
    return plan(*split([*words.split(), "--storage", str(storage)]))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            "gan --data ring --metric modes_cover",
            "--metric modes_cover is no figure of gan on ",
        ),
        ("gan --data ring --metric modes_cover", "did you mean 'modes_covered'? There are modes_c"),
        ("gan --data ring --metric fid", "; there are modes_covered, mode_kl,"),
        ("gan --data ring --require mode_covered>=8", "--require mode_covered is no figure"),
        ("gan --data ring --require mixture_score>=2", "high_quality_share, smallest_mode_share"),
        ("gan --data ring --require modes_covered>=9", "modes_covered is between 0 and 8 on ring"),
        ("gan --data ring --require modes_covered>8", "--require modes_covered>8 can never be met"),
        ("gan --require precision_classifier<0", "precision_classifier is between 0 and 1 on dig"),
        ("gan --data digits --metric mixture_score", "is no figure of gan on digits"),
        ("gan --metric fid_clasifier", "did you mean 'fid_classifier'?"),
        ("gan --metric loss/generator", "each with _classifier or nothing or _mobilenet_v2 behind"),
        ("gan --extractor classifier --metric kid_mobilenet_v2", "fid_classifier, kid_classifier,"),
        ("gan --extractor classifier --metric kid", "did you mean 'kid_classifier'?"),
        ("gan --extractor mobilenet_v2 --metric modes_covered", "--extractor mobilenet_v2"),
        ("gan --extractor none --metric fid", "; there are none"),
        ("gan --metric class_accuracy", "is no figure of gan on digits"),
        ("pix2pix --data pairs --data-root . --metric cycle_l1", "there are l1, ssim, l1_input,"),
        ("named --data negatives --metric l2", "did you mean 'l1'? There are l1, count"),
        ("pix2pix --data pairs --data-root . --metric l1_input", "is the same for every generator"),
        ("cgan --metric ms_ssim_real --mode min", "is the same for every generator"),
        ("gan --metric vendi_ratio_classifier", "neither when low nor when high: name another"),
    ],
)
def test_a_wrong_figure_is_refused_by_names_alone(words: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        planned(words, tmp_path)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        "gan --data ring --metric mixture_score --require high_quality_share>=0.9",
        "gan --metric fid --require modes_covered>=9",
        "gan --data ring --metric mode_kl --require modes_covered>=8 --require mode_kl<0.1",
        "gan --metric min_class_recall_classifier",
        "cgan --metric class_accuracy --require ms_ssim<=0.7",
        "gan --metric vendi_ratio_classifier --mode max",
        "own_mean --data negatives --metric distance",
        "stackgan --data captions --data-root . --metric retrieval_excess",
        "midinet --data midi --data-root . --metric melody_distance",
        "lapgan --data digits --metric kid_classifier",
        "unnamed --data negatives --metric anything",
        "in_two_stages --data negatives --metric late",
        "sharper --data pairs --data-root . --metric sharpness",
    ],
)
def test_a_figure_that_there_may_be_is_let_through(words: str, tmp_path: Path) -> None:
    assert planned(words, tmp_path).options.metric is not None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("gan --data digits --metric fid", "did you mean 'fid_classifier'?"),
        ("gan --data digits --require modes_covered>10", "is between 0 and 10 on digits"),
        ("gan --data digits --metric fid_inception", "--metric fid_inception is no figure of gan"),
        ("gan --data digits --metric coverage_mobilenet_v2", "is no figure of gan on digits"),
        ("gan --data negatives --batch-size 8 --metric modes_covered", "are fid, kid, "),
    ],
)
def test_data_on_this_machine_are_looked_at_before_ray_is_started(
    words: str, told: str, tmp_path: Path, no_ray: None
) -> None:
    with pytest.raises(UserError) as caught:
        tune(planned(words, tmp_path))
    assert told in str(caught.value)
    assert not list(tmp_path.glob("*"))


def test_a_resumed_search_whose_data_have_gone_is_refused_before_its_trials_fail(
    tmp_path: Path, no_ray: None
) -> None:
    (tmp_path / "pictures").mkdir()
    study = planned(f"gan --data folder --data-root {tmp_path}/pictures", tmp_path / "runs")
    study.save()
    (tmp_path / "pictures").rmdir()
    words = ["--resume", study.run.name, "--storage", str(tmp_path / "runs")]
    with pytest.raises(UserError, match=f"no folder {tmp_path}/pictures: give .* with --data-root"):
        tune_command(words)
    (tmp_path / "moved").mkdir()
    with pytest.raises(UserError, match=f"no pictures .* in {tmp_path}/moved"):
        tune_command([*words, "--data-root", f"{tmp_path}/moved"])


def test_a_right_figure_goes_as_far_as_ray(tmp_path: Path, no_ray: None) -> None:
    with pytest.raises(AssertionError, match="Ray is started"):
        tune(planned("gan --data digits --metric kid_classifier", tmp_path))


def prepared(words: str, storage: Path) -> None:
    study = planned(words, storage)
    prepare(study.run.to_dict(), Asked(study.options.metric, study.options.require))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("unnamed --metric l2", "did you mean 'l1'? There are l1, count"),
        ("unnamed --metric l1 --require counts>=30", "did you mean 'count'?"),
        ("unnamed --metric l1", None),
        ("named --metric l1 --require count>=30", None),
        ("in_two_stages --metric late", None),
    ],
)
def test_what_a_variant_gives_is_seen_before_trials_begin(
    words: str, told: str | None, tmp_path: Path
) -> None:
    words += " --data negatives --extractor none --batch-size 8 --max-steps 4"
    if told is None:
        prepared(words, tmp_path)
        return
    with pytest.raises(UserError) as caught:
        prepared(words, tmp_path)
    assert told in str(caught.value)


class Pairless(Pix2Pix):
    """Pictures that do not belong together have no truth to be near to."""

    knows_truth: ClassVar[Any] = lambda *_: False


def test_figures_that_the_data_do_not_allow_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VARIANTS._entries, "pairless", Pairless)
    for folder in ("input", "target"):
        (tmp_path / folder).mkdir()
        for number in range(40):
            Image.new("RGB", (16, 16), (number, 0, 0)).save(tmp_path / folder / f"{number}.png")
    words = f"pairless --data pairs --data-root {tmp_path} --image-size 16 --width 4 "
    words += "--input-folder input --target-folder target "
    words += "--patch-layers 1 --extractor none --max-steps 9 --metric l1"
    with pytest.raises(UserError, match="--metric l1 is no figure of pairless on pairs"):
        prepared(words, tmp_path / "runs")


def test_shares_and_modes_have_limits_but_ones_own_figures_have_none() -> None:
    names = FigureNames(("modes_covered", "recall"), ("recall",), ("", "_a"), ("recall",), 8)
    assert names.limits("modes_covered") == (0, 8)
    assert names.limits("recall_a") == (0, 1)
    assert names.limits("recall") == (-math.inf, math.inf)


def test_names_by_several_extractors_stay_short() -> None:
    names = FigureNames(("l1",), ("fid", "kid"), ("", "_classifier"))
    assert names.all() == {"l1", "fid", "kid", "fid_classifier", "kid_classifier"}
    assert str(names) == "l1; fid, kid, each with nothing or _classifier behind"
    assert str(FigureNames(("l1",), ("fid", "kid"), ("",))) == "l1, fid, kid"
    assert str(FigureNames(())) == ""
    assert FigureNames((), ("fid",), ("_classifier",)).nearest("fid") == "fid_classifier"


def test_the_direction_that_a_variant_declares_goes_before_that_of_the_name(tmp_path: Path) -> None:
    ground = Ground(None, None, (), "image", 0, (9,), ())
    run = planned("own_mean --data negatives --metric distance", tmp_path).run
    for metric, mode in (("distance", "min"), ("wide_distance_ratio", "max"), ("other", None)):
        assert with_metric(metric, ground, run) == (metric, mode)
