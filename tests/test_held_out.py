"""Variants that are asked for held-out examples (translations): figures, pictures, release."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from gan_core.config import RunConfig, make_config, write_config
from gan_core.data.digits import Digits
from gan_core.data.examples import Batch, DataSpec, Examples, Split, TensorSpec, to_unit_range
from gan_core.data.loading import check_examples
from gan_core.data.sources import SOURCES
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.judging import make_evaluator, tracked_figure
from gan_core.metrics.held_out import held_out_figures
from gan_core.observers import FolderObserver, Observer
from gan_core.pictures import image_grid
from gan_core.preparing import check_data
from gan_core.release import load_generator
from gan_core.run import Run
from gan_core.variant import VARIANTS, Loss, NoiseSpec, OptimizerSpec, Player, Stage, Variant
from pipelines.diagnose import diagnose
from pipelines.evaluate import EvaluateOptions, evaluate

HELD_OUT = 30


class Negatives(Digits):
    """Digits to be made from their negatives."""

    held_out = HELD_OUT

    def load(self, split: Split) -> Examples:
        found = super().load(split)
        images = found.tensors["image"][: 64 if split == "train" else self.held_out]
        specs = {
            "image": TensorSpec((1, 8, 8), -1.0, 1.0),
            "input": TensorSpec((1, 8, 8), -1.0, 1.0),
        }
        tensors = {"image": images, "input": 255 - images}
        return dataclasses.replace(found, tensors=tensors, spec=DataSpec(specs))


class Unequal(Negatives):
    """The same, of which validation and test have fewer inputs than pictures."""

    inputs = 17

    def load(self, split: Split) -> Examples:
        found = super().load(split)
        specs = {n: dataclasses.replace(s, series=n) for n, s in found.spec.tensors.items()}
        kept = found.tensors["input"][: None if split == "train" else self.inputs]
        tensors = {**found.tensors, "input": kept}
        return dataclasses.replace(found, tensors=tensors, spec=DataSpec(specs))


class Invert(Variant):
    """One weight to be learned: the picture is -1 times the input."""

    needs = frozenset({"input"})
    asks_held_out = True
    best_by = (("l1", "low"),)

    def build(self, data: DataSpec) -> None:
        self.generator = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.constant_(self.generator.weight, 0.5)

    def stages(self) -> tuple[Stage, ...]:
        spec = OptimizerSpec("sgd", 0.02)
        player = Player("generator", ("generator",), self._loss, spec, reads=("image", "input"))
        return (Stage("train", (player,), self.options.steps),)

    def _loss(self, batch: Batch) -> Loss:
        return Loss((self.generator(batch["input"]) - batch["image"]).square().mean())

    def noise(self, stage: str) -> tuple[NoiseSpec, ...]:
        return ()

    def conditions(self) -> tuple[str, ...]:
        return ("input",)

    def sample(self, stage: str, batch: Batch) -> Batch:
        return {"image": self.generator(batch["input"])}

    def figures(self, stage: str, generated: Batch, held_out: Batch) -> dict[str, float]:
        error = (generated["image"].double() - held_out["image"].double()).abs()
        return {"l1": error.mean(), "count": float(len(error))}  # type: ignore[dict-item]

    def protocol(self, stage: str) -> str:
        return "mean absolute difference"

    def picture(self, stage: str, generated: Batch, held_out: Batch) -> Tensor | None:
        columns = (held_out["input"], generated["image"], held_out["image"])
        return image_grid(torch.stack(columns, dim=1).flatten(0, 1), columns=3)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES._entries, "negatives", Negatives)
    monkeypatch.setitem(SOURCES._entries, "unequal", Unequal)
    monkeypatch.setitem(VARIANTS._entries, "invert", Invert)


def config_of(folder: Path, **values: object) -> RunConfig:
    plain = {"variant": "invert", "data": "negatives", "storage": str(folder), "name": "run"}
    rhythm = {"steps": 40, "batch_size": 16, "evaluate_every": 20, "log_every": 20, "workers": 0}
    return make_config({**plain, **rhythm, "extractor": "none", **values})


def test_a_run_is_judged_by_the_variants_own_figures_on_held_out_examples(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    run = Run(config, World(), FolderObserver(config.folder, World()))
    summary = run.play()
    # By hand, from the weight that was learned and the source's own pictures.
    real = to_unit_range(Negatives().load("validation").tensors["image"]).double()
    weight = run.game.variant.generator.weight.item()  # type: ignore[union-attr]
    assert summary["figures"]["l1"] == pytest.approx(
        (-weight * real - real).abs().mean().item(), abs=1e-6
    )
    assert summary["figures"]["count"] == HELD_OUT
    best = {"metric": "l1", "value": summary["figures"]["l1"], "step": 40}
    assert summary["best"] == {**best, "state": summary["best"]["state"]}
    data = f"(data {Negatives().load('validation').fingerprint[:8]})"
    assert f"30 examples of validation of digits {data}" in summary["protocol"]["invert"]
    assert -1.1 < weight < 0
    assert (config.folder / summary["grid"]).exists()


def test_no_held_out_example_counts_twice_where_there_are_more_of_the_other_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path, data="unequal", steps=20)
    run = Run(config, World(), FolderObserver(config.folder, World()))
    summary = run.play()
    assert summary["figures"]["count"] == Unequal.inputs
    assert "17 examples of validation of digits" in summary["protocol"]["invert"]
    options = EvaluateOptions(extractor="none", split="test")
    found = evaluate(load_generator(config.folder), options, tmp_path / "cache")
    assert found.figures["test/count"] == Unequal.inputs
    made: dict[str, int] = {}
    monkeypatch.setattr("gan_core.metrics.evaluation.Evaluator", lambda **given: made.update(given))
    monkeypatch.setattr("gan_core.judging.make_extractors", lambda *_: [SimpleNamespace(name="x")])
    make_evaluator(
        config,
        run.game.train,
        World(),
        reference=run.game.held_out,
        conditional=False,
        resizer="none",
        say=lambda text, level: None,
    )
    assert made["samples"] == Unequal.inputs


def test_density_windows_are_of_pictures_that_are_made_of_noise(tmp_path: Path) -> None:
    config = config_of(tmp_path, steps=2)
    Run(config, World(), FolderObserver(config.folder, World())).play()
    with pytest.raises(UserError, match="--parzen is for pictures that are made of noise"):
        evaluate(load_generator(config.folder), EvaluateOptions(parzen=True), tmp_path / "cache")


def test_figures_on_held_out_examples_that_were_trained_on_say_so(tmp_path: Path) -> None:
    config = config_of(tmp_path, steps=2, train_split="train+validation")
    run = Run(config, World(), FolderObserver(config.folder, World()))
    protocol = run.play()["protocol"]
    assert protocol["invert"].endswith("; trained on validation as well")
    for split, expected in (("train", True), ("validation", True), ("test", False)):
        options = EvaluateOptions(extractor="none", split=split)
        found = evaluate(load_generator(config.folder), options, tmp_path / "cache").protocol
        assert [("trained on" in text) for text in found.values()] == [expected]


def test_a_diagnosis_knows_how_many_samples_an_evaluation_makes(tmp_path: Path) -> None:
    config = config_of(tmp_path, steps=2, samples=500)
    config.folder.mkdir()
    write_config(config, config.folder / "config.yaml")
    run = Run(config, World(), FolderObserver(config.folder, World()))
    run.play()
    assert run.diagnosis.facts.samples == HELD_OUT
    assert diagnose(config.folder).facts == run.diagnosis.facts


def test_the_released_generator_has_examples_of_what_it_is_asked_for(tmp_path: Path) -> None:
    config = config_of(tmp_path, steps=2)
    run = Run(config, World(), FolderObserver(config.folder, World()))
    run.play()
    weight = run.game.variant.generator.weight.item()  # type: ignore[union-attr]
    generator = load_generator(config.folder)
    asked = to_unit_range(Negatives().load("validation").tensors["input"])
    assert torch.equal(generator.examples["input"][:HELD_OUT], asked)
    made = generator.generate(torch.tensor([3, 0]))
    assert torch.allclose(made, weight * asked[[3, 0]], atol=1e-6)
    own = torch.full((1, 1, 8, 8), 0.25)
    made = generator.generate(torch.tensor([7]), conditions={"input": own})
    assert torch.allclose(made, weight * own, atol=1e-6)
    # The verb evaluate finds the same figures as the run did.
    scores = evaluate(generator, EvaluateOptions(extractor="none"), tmp_path / "cache")
    assert scores.figures["l1"] == pytest.approx(run.figures["l1"], rel=1e-6)
    tested = evaluate(generator, EvaluateOptions(extractor="none", split="test"), tmp_path / "c")
    assert tested.figures["test/l1"] != scores.figures["l1"]
    chosen = EvaluateOptions(extractor="none", split="validation")
    validated = evaluate(generator, chosen, tmp_path / "c")
    assert validated.figures["validation/l1"] == scores.figures["l1"]


@pytest.mark.parametrize(
    ("held_out", "values", "told"),
    [
        (1, {"extractor": "mobilenet_v2"}, "holds 1 example: give 2, or --extractor none"),
        (1, {"extractor": "auto"}, "invert is judged by the validation split of 'negatives'"),
        (2, {"workers": 3}, r"of its examples \(2\) 3 workers need 3: give more, or fewer"),
        (30, {"workers": 3, "samples": 2}, "--samples 2 cannot be shared by 3 workers"),
    ],
)
def test_too_few_examples_to_judge_by_are_told_before_training(
    held_out: int,
    values: dict[str, object],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Negatives, "held_out", held_out)
    config = config_of(tmp_path, **values)
    with pytest.raises(UserError, match=told) as caught:
        check_data(config)
    assert "\n" not in str(caught.value)
    alone = dataclasses.replace(config, workers=0, extractor="none")
    assert check_data(alone)["held_out"] == held_out
    with pytest.raises(UserError, match=told):
        Run(config, World(size=max(1, config.workers)), Observer())


def test_one_held_out_example_is_enough_for_figures_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Negatives, "held_out", 1)
    summary = Run(config_of(tmp_path, steps=4, log_every=2), World(), Observer()).play()
    assert summary["figures"]["count"] == 1
    assert {found["state"] for found in summary["diagnosis"].values()} == {"unknown"}


def test_more_samples_than_examples_go_round(tmp_path: Path) -> None:
    config = config_of(tmp_path, steps=1)
    run = Run(config, World(), FolderObserver(config.folder, World()))
    sampler, held_out = run.game.sampler(), run.game.held_out_examples()
    once = held_out_figures(sampler, held_out, HELD_OUT, World())
    twice = held_out_figures(sampler, held_out, 2 * HELD_OUT, World())
    assert twice["l1"] == pytest.approx(once["l1"], rel=1e-6)
    assert twice["count"] == 2 * HELD_OUT


def test_samples_that_are_not_finite_make_every_figure_nan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(config_of(tmp_path, steps=1), World(), FolderObserver(tmp_path / "run", World()))
    run.game.variant.generator.weight.data.fill_(math.nan)  # type: ignore[union-attr]
    figures = held_out_figures(run.game.sampler(), run.game.held_out_examples(), HELD_OUT, World())
    assert set(figures) == {"l1", "count"}
    assert all(map(math.isnan, figures.values()))
    assert "not finite" in caplog.text


def test_the_figure_that_decides_may_be_good_when_high() -> None:
    figures = {"psnr": 28.0, "fid": 3.0}
    assert tracked_figure(figures, (("psnr", "high"),)) == ("psnr", -28.0)
    assert tracked_figure(figures, (("ssim", "high"),)) == ("fid", 3.0)
    assert tracked_figure({"psnr": float("nan")}, (("psnr", "high"),)) == ("psnr", float("inf"))
    points = {"modes_covered": 0.0, "high_quality_share": float("nan")}
    assert tracked_figure(points) == ("high_quality_share", float("inf"))


def test_every_series_must_fill_a_batch() -> None:
    specs = {"image": TensorSpec((1, 2, 2), -1.0, 1.0),
             "other": TensorSpec((1, 2, 2), -1.0, 1.0, series="other")}  # fmt: skip
    shapes = {"image": (9, 1, 2, 2), "other": (4, 1, 2, 2)}
    tensors = {name: torch.zeros(shape, dtype=torch.uint8) for name, shape in shapes.items()}
    examples = Examples(tensors, DataSpec(specs), "unpaired")
    check_examples(examples, batch_size=4)
    with pytest.raises(UserError, match="holds 4 examples, fewer than one batch of 5"):
        check_examples(examples, batch_size=5)
    assert len(examples.select(torch.arange(2)).tensors["other"]) == 4


def test_players_that_share_a_batch_cannot_scale_it() -> None:
    player = Player("g", ("g",), lambda batch: Loss(batch["x"]), OptimizerSpec(), batch_scale=2)
    with pytest.raises(ValueError, match="share a batch"):
        Stage("train", (player,), 1, batch="iteration")
