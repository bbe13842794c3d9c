"""What a run is judged by: known before it starts, refused early, compared with its like."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gan_core.variants  # noqa: F401  (registers the variants)
from gan_core import judging
from gan_core import weights as published
from gan_core.config import RunConfig, make_config, write_config
from gan_core.data.digits import Digits
from gan_core.data.examples import DataSpec, Examples, Split
from gan_core.data.sources import SOURCES, picture_spec
from gan_core.diagnostics.mode_collapse import expected_modes
from gan_core.engine.checkpoint import find_checkpoint
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.judging import mode_shares
from gan_core.metrics.classifier import ClassifierExtractor
from gan_core.metrics.features import EXTRACTORS, Extractor, ExtractorSetup
from gan_core.observers import FolderObserver, Observer
from gan_core.preparing import check_data
from gan_core.run import Run, play
from pipelines.diagnose import diagnose
from pipelines.tuning.figures import names_of_data

ALONE = World()


class Untested(Digits):
    """Labelled pictures, few, whose test split is missing."""

    summary = "digits without a test split"

    def load(self, split: Split) -> Examples:
        if split == "test":
            raise UserError("no file t10k: put it there")
        found = super().load(split)
        return dataclasses.replace(found, tensors={n: t[:64] for n, t in found.tensors.items()})


class Unlabelled(Untested):
    """The same pictures without their labels."""

    def load(self, split: Split) -> Examples:
        found = super().load(split)
        spec = picture_spec((1, 8, 8))
        return dataclasses.replace(found, tensors={"image": found.tensors["image"]}, spec=spec)


class OfOneClass(Untested):
    """The same pictures, all called the same, as those of one folder are."""

    def load(self, split: Split) -> Examples:
        found = super().load("train")
        labels = torch.zeros_like(found.tensors["label"])
        spec = picture_spec((1, 8, 8), ("faces",))
        tensors = {"image": found.tensors["image"], "label": labels}
        return dataclasses.replace(found, tensors=tensors, spec=spec, split=split)


class Unbalanced(Untested):
    """The same pictures, of which one alone is of the first class, and none of the last."""

    def load(self, split: Split) -> Examples:
        found = super().load("train")
        labels = torch.ones(64, dtype=torch.int64)
        labels[0], labels[40:] = 0, 2
        spec = picture_spec((1, 8, 8), ("few", "many", "some", "none"))
        tensors = {"image": found.tensors["image"], "label": labels}
        return dataclasses.replace(found, tensors=tensors, spec=spec, split=split)


class Means(Extractor):
    """Means of rows and columns: made at once."""

    made_at: list[str] = []  # noqa: RUF012  (what tests read)

    @classmethod
    def create(cls, setup: ExtractorSetup) -> Means:
        torch.rand(3)  # a careless extractor draws from the global generator
        cls.made_at.append("made")
        return cls(nn.Identity(), {"weights": "none"}, setup.world.device)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return torch.cat((images.mean(2).flatten(1), images.mean(3).flatten(1)), 1), None


class MobileMeans(Means):
    name = "mobilenet_v2"


class InceptionMeans(Means):
    name = "inception"


@pytest.fixture(autouse=True)
def _sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES._entries, "untested", Untested)
    monkeypatch.setitem(SOURCES._entries, "unlabelled", Unlabelled)
    monkeypatch.setitem(SOURCES._entries, "of-one-class", OfOneClass)


class Listener(Observer):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, str, str]] = []
        self.info: dict[str, Any] = {}
        self.figures: dict[str, float] = {}

    def start(self, step: int, info: dict[str, Any]) -> None:
        self.info = info

    def message(self, step: int, text: str, level: str = "info") -> None:
        self.told.append((step, level, text))

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self.figures |= values

    def of_level(self, level: str) -> list[str]:
        return [text for step, at, text in self.told if at == level and step == 0]


def config_of(folder: Path, **values: Any) -> RunConfig:
    sizes = {"latent": 3, "hidden": 8, "maxout_units": 4, "batch_size": 16, "steps": 4}
    rhythm = {"log_every": 2, "evaluate_every": 2, "checkpoint_every": 0, "samples": 40}
    plain = {"variant": "gan", "storage": str(folder), "name": "run", "workers": 0}
    return make_config({**plain, **sizes, **rhythm, **values})


@pytest.mark.parametrize(
    ("data", "extractor", "told"),
    [
        ("untested", "classifier", "no file t10k: put it there"),
        ("unlabelled", "classifier", "--extractor classifier needs labels and 'unlabelled' has"),
        ("of-one-class", "classifier", "needs two classes or more and 'of-one-class' has one: "),
        ("ring", "classifier", "--extractor classifier needs pictures and 'ring' has point data"),
        ("ring", "inception", "--extractor inception needs pictures and 'ring' has point data"),
        ("ring", "mobilenet_v2", "--extractor mobilenet_v2 needs pictures"),
    ],
)
def test_an_extractor_that_the_data_cannot_serve_is_refused_before_the_run(
    data: str, extractor: str, told: str, tmp_path: Path
) -> None:
    config = config_of(tmp_path, data=data, extractor=extractor)
    with pytest.raises(UserError, match=told) as caught:
        check_data(config)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=told):
        Run(config, ALONE, Observer()).play()
    for other in ("auto", "none"):
        assert check_data(dataclasses.replace(config, extractor=other))["examples"] > 0


def test_a_missing_test_split_under_auto_is_told_at_the_start_and_leaves_no_figures(
    tmp_path: Path,
) -> None:
    listener = Listener()
    play(config_of(tmp_path, data="untested"), ALONE, listener)
    assert listener.of_level("warning") == ["no figures by classifier: no file t10k: put it there"]
    assert len(listener.told) == 1
    assert not any(name.startswith("fid") for name in listener.figures)


@pytest.fixture
def nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Any download is a failure; the folder where weights would be looked for."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a download")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(published, "_MOBILENET_PACKAGE", "no_such_package")
    return tmp_path / "hub" / "checkpoints"


def test_auto_downloads_nothing_and_says_what_is_missing(
    nothing_is_fetched: Path, tmp_path: Path
) -> None:
    listener = Listener()
    play(config_of(tmp_path, data="unlabelled"), ALONE, listener)
    first, second = listener.of_level("warning")
    assert first.startswith("no figures by inception: its weights are not on this machine: put ")
    assert f"into {nothing_is_fetched}" in second
    assert second.startswith("no figures by mobilenet_v2: ")
    with pytest.raises(AssertionError, match="a download"):
        play(config_of(tmp_path, data="unlabelled", extractor="inception"), ALONE, Observer())


@pytest.mark.parametrize(
    ("data", "shares"),
    [(Unbalanced(), [1 / 64, 39 / 64, 24 / 64]), (OfOneClass(), []), (Unlabelled(), [])],
)
def test_the_shares_of_modes_are_those_of_labels_that_there_are(
    data: Digits, shares: list[float], tmp_path: Path
) -> None:
    assert mode_shares(config_of(tmp_path), data.load("train")) == shares


def test_a_diagnosis_knows_the_rarest_mode_also_from_the_journal(tmp_path: Path) -> None:
    config = config_of(tmp_path, data="ring")
    config.folder.mkdir()
    write_config(config, config.folder / "config.yaml")
    run = Run(config, ALONE, FolderObserver(config.folder, ALONE))
    run.play()
    assert run.diagnosis.facts.least_share == 1 / 8
    expected = expected_modes([1 / 8] * 8, run.diagnosis.facts.samples)
    assert run.diagnosis.facts.expected_modes == expected
    assert run.diagnosis.facts.real == len(run.train)
    assert "diffaug" not in run.diagnosis.facts.options  # refused for points
    assert diagnose(config.folder).facts == run.diagnosis.facts


def test_pictures_of_one_class_are_judged_like_those_of_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, extractor in (("inception", InceptionMeans), ("mobilenet_v2", MobileMeans)):
        monkeypatch.setitem(EXTRACTORS._entries, name, extractor)
    config, listener = config_of(tmp_path, data="of-one-class"), Listener()
    play(config, ALONE, listener)
    assert listener.of_level("info")[-1] == "figures by inception, against 64 real pictures"
    assert listener.info["modes_in_data"] == 0
    known = names_of_data(config, check_data(config))
    assert known is not None
    assert "fid" in listener.figures
    assert not {"modes_covered", "min_class_recall"} & {*listener.figures, *known.all()}


@pytest.mark.usefixtures("nothing_is_fetched")
@pytest.mark.parametrize("both", [True, False])
def test_auto_takes_inception_first_and_says_what_it_measures(
    both: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXTRACTORS._entries, "mobilenet_v2", MobileMeans)
    if both:
        monkeypatch.setitem(EXTRACTORS._entries, "inception", InceptionMeans)
    listener = Listener()
    play(config_of(tmp_path, data="unlabelled"), ALONE, listener)
    used = "inception" if both else "mobilenet_v2"
    assert listener.of_level("info")[-1] == f"figures by {used}, against 64 real pictures"
    assert listener.of_level("warning") == []
    assert ("fid" in listener.figures, "fid_mobilenet_v2" in listener.figures) == (both, not both)


def test_the_evaluator_is_made_before_the_first_turn_and_disturbs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXTRACTORS._entries, "inception", InceptionMeans)
    weights = []
    for extractor in ("none", "inception"):
        config = config_of(tmp_path, data="unlabelled", extractor=extractor, dropout=0.5)
        run = Run(config, ALONE, Observer())
        made: list[int] = []
        play_turn = run.game.iterate

        def iterate(made: list[int] = made, play_turn: Any = play_turn) -> None:
            made.append(len(Means.made_at))
            play_turn()

        monkeypatch.setattr(run.game, "iterate", iterate)
        Means.made_at.clear()
        run.play()
        assert made == [1 if extractor == "inception" else 0] * 4
        weights.append(run.game.variant.state_dict())
    for name, values in weights[0].items():
        assert torch.equal(values, weights[1][name])


def test_figures_say_how_the_present_stage_s_pictures_were_resized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXTRACTORS._entries, "inception", InceptionMeans)
    run = Run(config_of(tmp_path, data="unlabelled", extractor="inception"), ALONE, Observer())
    texts = iter(["first", "second", "third"])
    monkeypatch.setattr(run, "_resizer", lambda: next(texts))
    run._make_evaluator()
    for text in ("second", "third"):
        run._evaluate()
        assert f"resized to native: {text};" in run.protocol["inception"]


def test_the_best_of_another_metric_does_not_stand_in_the_way(tmp_path: Path) -> None:
    run = Run(config_of(tmp_path, extractor="none"), ALONE, Observer())
    sampler = run.game.sampler()
    run.best = {"metric": "fid", "value": 1.0, "step": 1, "score": 1.0}
    run.game.step = 1
    run.figures = {"fid_classifier": 50.0}
    run._keep_if_best(sampler)
    kept = {"metric": "fid_classifier", "value": 50.0, "step": 1, "score": 50.0, "protocol": None}
    assert run.best == kept
    run.figures = {"fid_classifier": 60.0}
    run._keep_if_best(sampler)
    assert run.best["value"] == 50.0


def test_a_generator_whose_figure_is_not_finite_is_never_the_best(tmp_path: Path) -> None:
    run = Run(config_of(tmp_path, data="ring"), ALONE, Observer())
    sampler, nan = run.game.sampler(), float("nan")
    spoiled = {"modes_covered": 0.0, "high_quality_share": nan}
    run.game.step, run.figures = 1, spoiled
    run._keep_if_best(sampler)
    assert run.best is None
    run.figures = {"modes_covered": 3.0, "high_quality_share": 0.5}
    for score in (nan, float("inf")):  # as earlier versions kept one
        run.best = {"metric": "high_quality_share", "value": nan, "step": 1, "score": score}
        run._keep_if_best(sampler)
        assert (run.best["value"], run.best["score"]) == (0.5, -3.5)
    run.game.step, run.figures = 2, spoiled
    run._keep_if_best(sampler)
    assert run.best["step"] == 1


def test_a_figure_of_other_samples_does_not_compare_with_the_best(tmp_path: Path) -> None:
    """A few samples have a lower fid than many: resumed with more, nothing would ever be better."""
    config = config_of(tmp_path, data="ring", samples=40)
    play(config, ALONE, FolderObserver(config.folder, ALONE))
    more = config_of(tmp_path, data="ring", samples=60)
    run = Run(more, ALONE, Observer())
    checkpoint = find_checkpoint(config.folder)
    assert checkpoint is not None
    run._restore(checkpoint)
    assert run.best is not None
    assert "40 generated points" in run.best["protocol"]
    assert "protocol" not in run._summary("finished")["best"]
    worse = {"high_quality_share": 0.0, "modes_covered": 0.0}
    run.best["score"], run.game.step, run.figures = -9.0, 6, worse
    run._keep_if_best(run.game.sampler())
    assert run.best["step"] <= 4, "measured as it was, it is worse"
    run.protocol = {"modes": run.best["protocol"].replace("40", "60")}
    run._keep_if_best(run.game.sampler())
    assert (run.best["step"], run.best["protocol"]) == (6, run.protocol["modes"])
    del run.best["protocol"]  # as an earlier version kept it
    run.best["score"], run.game.step = -9.0, 8
    run._keep_if_best(run.game.sampler())
    assert run.best["step"] == 6


@pytest.mark.parametrize(
    ("metric", "line"),
    [("fid", "inception"), ("kid", "inception"), ("fid_classifier", "classifier"),
     ("kid_mobilenet_v2", "mobilenet_v2"), ("high_quality_share", "modes"), ("l1", "pix2pix")],
)  # fmt: skip
def test_the_figure_that_decides_has_its_own_line_of_the_protocol(metric: str, line: str) -> None:
    names = ("pix2pix", "inception", "classifier", "mobilenet_v2", "modes")
    assert judging.tracked_protocol(metric, {name: name for name in names}, "pix2pix") == line
    assert judging.tracked_protocol(metric, {}, "pix2pix") is None


class Telltale(Listener):
    """Remembers tags too."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[str, str] = {}

    def tag(self, step: int, name: str, value: str) -> None:
        self.tags[name] = value


def planted(folder: Path, metric: str, history: list[float], kept: Any = None) -> tuple[Run, Any]:
    """A run that has seen those values of its metric, one a step; ``kept``: its best before."""
    observer = Telltale()
    run = Run(config_of(folder, extractor="none"), ALONE, observer)
    run.best = kept
    sampler = run.game.sampler()
    for value in history:
        run.game.step += 1
        run.figures = {metric: value, "modes_covered": 1.0}
        run._keep_if_best(sampler)
    return run, observer


def test_a_figure_that_has_doubled_since_its_best_is_told_once(tmp_path: Path) -> None:
    """StudioGAN's own DCGAN log: best at a fifth of the run, nearly three times that at its end."""
    history = [90.0, 49.0, 60.0, 97.9]
    run, observer = planted(tmp_path, "fid", history)
    assert (observer.told, observer.tags) == ([], {})
    run, observer = planted(tmp_path, "fid", [*history, 98.0, 137.4, 150.0])
    ((step, level, text),) = observer.told
    assert (step, level) == (5, "warning")
    assert text.startswith("fid 98 at step 5 is twice its best or more: 49 at step 2")
    assert text.startswith(observer.tags["doubled_since_best"])
    best = run._summary("finished")["best"]
    assert best["doubled"] == {"value": 98.0, "step": 5}
    assert (best["value"], best["step"]) == (49.0, 2)
    # A resumed run does not say it again, until a new best is lost as well.
    again, observer = planted(tmp_path, "fid", [140.0], run._record()["best"])
    assert observer.told == []
    _, observer = planted(tmp_path, "fid", [140.0, 30.0, 61.0], again.best)
    assert [step for step, _, _ in observer.told] == [3]


@pytest.mark.parametrize(
    ("metric", "history", "told"),
    [
        ("fid_classifier", [2.0, float("nan"), 4.0], 1),  # of 4.0: what is no number is no double
        ("fid_classifier", [2.0, float("nan")], 0),
        ("fid_classifier", [0.0, 1.0], 0),
        ("high_quality_share", [0.9, 0.1], 0),  # of which high is good: twice means nothing
    ],
)
def test_only_what_has_a_double_is_doubled(
    metric: str, history: list[float], told: int, tmp_path: Path
) -> None:
    _, observer = planted(tmp_path, metric, history)
    assert len(observer.told) == told


def released(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("*.json")
    return json.loads(path.read_text())


def test_a_stop_releases_the_last_generator_with_no_figures_of_other_weights(
    tmp_path: Path,
) -> None:
    values = {"data": "ring", "evaluate_every": 2, "log_every": 1}
    config = config_of(tmp_path, **values, steps=4)
    play(config, ALONE, FolderObserver(config.folder, ALONE))
    last = config.folder / "generator" / "last"
    assert released(last)["step"] == 4
    assert released(last)["figures"]
    longer = config_of(tmp_path, **values, steps=8)

    class Stopping(FolderObserver):
        def metrics(self, step: int, values: dict[str, float]) -> None:
            if step == 5:
                (self.folder / "STOP").touch()

    observer = Stopping(config.folder, ALONE)
    summary = play(longer, ALONE, observer, find_checkpoint(config.folder))
    assert (summary["status"], summary["step"]) == ("stopped", 5)
    assert (released(last)["step"], released(last)["figures"]) == (5, {})


def test_a_start_says_which_engine_plays(tmp_path: Path) -> None:
    listener = Listener()
    play(config_of(tmp_path, extractor="none", engine="graph", device="cpu"), ALONE, listener)
    assert listener.info["engine"] == "eager"  # no graph without a GPU, whatever was asked for
    (line,) = (text for text in listener.of_level("warning") if "--engine" in text)
    assert line == "--engine graph needs a CUDA device: playing eager"


def test_the_data_s_shape_decides_whether_a_classifier_is_possible() -> None:
    from gan_core.metrics.classifier import check_spec

    small: DataSpec = picture_spec((1, 3, 8), ("a", "b"))
    with pytest.raises(UserError, match="at least 4 x 4 pixels"):
        check_spec(small, "slits")


@pytest.mark.parametrize(("share", "told"), [(0.5, True), (0.4, True), (0.51, False)])
def test_a_classifier_that_only_guesses_is_told(
    share: float, told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = object.__new__(ClassifierExtractor)
    made.test_accuracy, made.guess = share, 0.5
    monkeypatch.setattr(judging, "_make_extractor", lambda *_: made)
    train, said = Digits().load("train"), []
    for asked in ("auto", "classifier"):
        config = config_of(tmp_path, data="digits", extractor=asked)
        judging.make_extractors(config, train, ALONE, lambda *words: said.append(words))
    assert len(said) == (2 if told else 0)
    for text, level in said:
        assert (
            f"recognises {share:.0%} of the test split, of which its largest class is 50%" in text
        )
        assert level == "warning"


@pytest.mark.parametrize(("count", "held"), [(1, "1 picture"), (5, "5 pictures")])
def test_few_pictures_are_nothing_to_compare_with(
    count: int, held: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "make_extractors", lambda *_: [SimpleNamespace(name="any")])
    config, examples = config_of(tmp_path, data="digits"), Digits().load("test")
    one = dataclasses.replace(
        examples, tensors={name: tensor[:count] for name, tensor in examples.tensors.items()}
    )
    with pytest.raises(UserError, match=f"'digits' holds {held}, and figures .* need 6: give more"):
        judging.make_evaluator(
            config, examples, ALONE, reference=one, conditional=False, resizer="none", say=print
        )
