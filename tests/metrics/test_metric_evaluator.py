"""The evaluator as a whole: its figures, its calm, and any number of ranks."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from pretended_cuda import pretended_cuda
from torch import Tensor, nn

from gan_core.data.examples import DataSpec, Examples, TensorSpec, to_pixels, to_unit_range
from gan_core.data.mixtures import MIXTURES
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.metrics import coverage, distances, manifold, similarity
from gan_core.metrics.cache import save_tensors
from gan_core.metrics.evaluation import Evaluation, Evaluator
from gan_core.metrics.extractors import Extractor, create_extractor
from gan_core.metrics.names import evaluation_names
from gan_core.metrics.parzen import parzen_figures
from gan_core.metrics.ranks import on_leader
from gan_core.metrics.sampling import windows

FAMILY = ("fid", "kid", "precision", "recall", "density", "coverage")
SHAPE = (1, 8, 8)


class Projection(Extractor):
    """A random projection; its logits read the class off the brightness of three columns."""

    name = "classifier"
    chunk = 7
    calls = 0

    def __init__(self, name: str = "classifier", device: torch.device | None = None) -> None:
        network = nn.Linear(64, 6)
        generator = torch.Generator().manual_seed(0)
        network.weight.data = torch.randn(6, 64, generator=generator)
        network.bias.data.zero_()
        self.name = name  # type: ignore[misc]
        super().__init__(network, {"weights": "fixed"}, device or torch.device("cpu"))

    @classmethod
    def create(cls, setup) -> Projection:
        return cls()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        type(self).calls += 1
        logits = images[:, 0, :, :3].mean(1) * 5
        return self.network(images.flatten(1)), None if self.name == "mobilenet_v2" else logits


def pictures(count: int, seed: int = 0, split: str = "train") -> Examples:
    """Noise with one bright column of three, which is the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    pixels = torch.randint(0, 150, (count, *SHAPE), generator=generator, dtype=torch.uint8)
    for label in range(3):
        pixels[labels == label, :, :, label] += 100
    specs = {"image": TensorSpec(SHAPE, -1, 1), "label": TensorSpec((), classes=3)}
    return Examples({"image": pixels, "label": labels}, DataSpec(specs), "columns", split)  # type: ignore[arg-type]


def generator_of(count: int, seed: int = 1):
    """Samples that depend on their index alone: other pictures, somewhat dimmed."""
    images = to_unit_range(pictures(count, seed).tensors["image"]) * 0.9 + 0.001

    def generate(index: Tensor) -> Tensor:
        assert index.dtype == torch.int64
        assert (index.diff() == 1).all()
        return images.to(index.device)[index]

    return generate


def evaluate(world: World | None = None, samples: int = 60, **options) -> Evaluation:
    evaluator = Evaluator(
        reference=pictures(90),
        extractors=options.pop("extractors", [Projection()]),
        samples=samples,
        world=world or World(),
        batch_size=options.pop("batch_size", 16),
        **options,
    )
    return evaluator(generator_of(samples), torch.arange(samples) % 3)


def test_what_of_the_classes_is_to_be_expected_is_what_the_classifier_sees_in_real_examples() -> (
    None
):
    class Blind(Projection):
        """Takes all of class 2 for class 1, and a part of class 0 for class 1."""

        def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
            features, logits = super().forward(images)
            assert logits is not None
            seen = logits.argmax(1)
            seen = torch.where((seen == 2) | (images[:, 0, 0, 5] > 0), 1, seen)
            return features, nn.functional.one_hot(seen, 3).float()

    blind = Blind()
    found = evaluate(extractors=[blind], classifier=blind, samples=90)
    real = blind.forward(to_unit_range(pictures(90).tensors["image"]))[1]
    shares = real.mean(0)  # type: ignore[union-attr]
    made = torch.tensor(found.per_class["class_share_generated"])
    assert (shares[2], found.figures["least_mode_ratio"]) == (0, 0)
    assert found.signals["seen/modes"] == 2
    ratio = (made[:2] / shares[:2]).min().item()
    assert found.signals["seen/least_mode_ratio"] == pytest.approx(ratio, rel=1e-6)
    assert ratio > 0.5
    assert not found.signals.keys() & found.figures.keys()
    assert evaluate(extractors=[Projection("mobilenet_v2")]).signals == {}, "without a classifier"


def test_classes_without_real_examples_are_named_in_the_protocol() -> None:
    classifier = Projection()
    whole = pictures(90)
    kept = whole.tensors["label"] != 1
    tensors = {name: values[kept] for name, values in whole.tensors.items()}
    for reference, told in ((whole, False), (dataclasses.replace(whole, tensors=tensors), True)):
        evaluator = Evaluator(
            reference=reference,
            extractors=[classifier],
            samples=60,
            world=World(),
            classifier=classifier,
        )
        found = evaluator(generator_of(60))
        ending = "; no real example of 1: mode_kl is infinite where one is made"
        assert found.protocol["modes"].endswith(ending) == told
        assert math.isinf(found.figures["mode_kl"]) == told


class Broken(Projection):
    """Its features are finite for so many pictures alone."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        features, logits = super().forward(images)
        self.left -= len(images)
        return features / max(self.left + 1, 0), logits


@pytest.mark.parametrize(("left", "kind"), [(0, "90 real"), (90, "60 generated")])
def test_features_that_are_not_finite_are_told_of_their_extractor(
    left: int, kind: str, tmp_path: Path
):
    told = rf"extractor 'classifier' gave features that are not finite for \d+ of {kind} pictures"
    with pytest.raises(UserError, match=told):
        evaluate(extractors=[Broken(left)], cache=tmp_path)
    assert bool(list(tmp_path.glob("features-*"))) is (left > 0)


def test_figures_are_those_of_the_features_of_all_samples():
    figures = evaluate().figures
    real = Projection().features(to_unit_range(pictures(90).tensors["image"]))[0]
    made = to_unit_range(to_pixels(generator_of(60)(torch.arange(60))))
    fake, logits = Projection().features(made)
    assert figures["fid_classifier"] == pytest.approx(
        distances.RealMoments(real).frechet_distance(fake)
    )
    assert figures["kid_classifier"] == pytest.approx(distances.RealKernel(real).distance(fake))
    assert figures["inception_score_classifier"] == pytest.approx(distances.inception_score(logits))
    balls = manifold.RealManifold(real).compare(fake)
    for name in ("precision", "recall", "density", "coverage"):
        assert figures[f"{name}_classifier"] == pytest.approx(getattr(balls, name))
    assert figures["modes_covered"] == 3
    assert figures["mode_kl"] == pytest.approx(0, abs=1e-12)
    assert figures["class_accuracy"] == 1
    by_class = [balls.recalled[torch.arange(90) % 3 == c].double().mean().item() for c in range(3)]
    assert figures["min_class_recall_classifier"] == pytest.approx(min(by_class))


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a device that is none")
def test_figures_on_a_device_are_those_of_the_host(monkeypatch):
    options = {"conditional": True, "samples": 90}
    wanted = evaluate(**options)
    with pretended_cuda(monkeypatch) as device:
        found = evaluate(World(device=device), extractors=[Projection(device=device)], **options)
    assert found.figures == pytest.approx(wanted.figures, rel=1e-4, abs=1e-6, nan_ok=True)
    assert found.per_class == wanted.per_class


@pytest.mark.parametrize(("compared", "made"), [(60, 60), (48, 60 + 48)])
def test_samples_are_made_again_only_to_compare_the_first_of_many(compared, made, monkeypatch):
    monkeypatch.setattr(similarity, "PICTURES", compared)
    generate, asked = generator_of(60), []

    def counted(index: Tensor) -> Tensor:
        asked.append(len(index))
        return generate(index)

    evaluator = Evaluator(
        reference=pictures(90),
        extractors=[Projection()],
        samples=60,
        world=World(),
        batch_size=12,
    )
    figures = evaluator(counted).figures
    assert sum(asked) == made
    images = to_unit_range(to_pixels(generate(torch.arange(compared))))
    within = similarity.similarity_within_classes(images, torch.arange(compared) % 3)
    assert figures["ms_ssim"] == within


def test_the_real_data_themselves_score_perfectly():
    reference = pictures(90)
    evaluator = Evaluator(reference=reference, extractors=[Projection()], samples=90, world=World())
    images = to_unit_range(reference.tensors["image"])
    figures = evaluator(lambda index: images[index]).figures
    assert figures["fid_classifier"] == pytest.approx(0, abs=1e-6)
    assert figures["precision_classifier"] == figures["recall_classifier"] == 1
    assert figures["coverage_classifier"] == 1
    assert "class_accuracy" not in figures


def test_names_carry_the_extractor_and_inception_has_none():
    extractors = [Projection(name) for name in ("classifier", "inception", "mobilenet_v2")]
    result = evaluate(extractors=extractors)
    names = set(result.figures)
    for suffix in ("", "_classifier", "_mobilenet_v2"):
        assert {f"{figure}{suffix}" for figure in (*FAMILY, "min_class_recall")} <= names
    assert {"inception_score", "inception_score_classifier"} <= names
    assert "inception_score_mobilenet_v2" not in names
    assert set(result.protocol) == {"classifier", "inception", "mobilenet_v2", "modes"}


@pytest.mark.parametrize("name", ["classifier", "inception", "mobilenet_v2"])
@pytest.mark.parametrize("conditions", [("label",), ()])
def test_all_names_are_known_before_anything_is_evaluated(name, conditions):
    labels = torch.arange(60) % 3 if conditions else None
    evaluator = Evaluator(
        reference=pictures(90), extractors=[Projection(name)], samples=60, world=World()
    )
    found = set(evaluator(generator_of(60), labels).figures)
    known = evaluation_names([name], labels=True, mixture=False, conditions=conditions).all()
    # Whether an extractor has logits is not known by its name.
    assert known - found <= {"inception_score_mobilenet_v2"}
    assert found <= known


@pytest.mark.parametrize("split", ["train", "train+validation", "validation", "test"])
def test_what_is_near_to_held_out_pictures_is_no_copy_of_training(split):
    reference = pictures(90, split=split)
    evaluator = Evaluator(reference=reference, extractors=[Projection()], samples=60, world=World())
    found, held_out = set(evaluator(generator_of(60)).figures), not split.startswith("train")
    assert ("copied_share_classifier" in found) != held_out
    known = evaluation_names(
        ["classifier"], labels=True, mixture=False, conditions=(), held_out=held_out
    )
    assert known.all() == found


def test_the_names_of_figures_of_texts_are_known_too():
    class Undecided:
        extractor, protocol = "inception", "none"

        def preference(self, features: Tensor, captions: Tensor) -> float:
            return 0.6

    plain = pictures(90)
    images, texts = TensorSpec(SHAPE, -1, 1), TensorSpec((2, 5))
    reference = Examples(
        {"image": plain.tensors["image"], "text": torch.zeros(90, 2, 5)},
        DataSpec({"image": images, "text": texts}),
        "captioned",
    )
    evaluator = Evaluator(
        reference=reference,
        extractors=[Projection("inception")],
        samples=60,
        world=World(),
        matcher=Undecided(),
    )
    found = set(evaluator(generator_of(60), None, torch.zeros(60, 2, 5)).figures)
    names = evaluation_names(["inception"], labels=False, mixture=False, conditions=("text",))
    assert names.all() == found


def test_all_names_of_a_mixture_are_known_before():
    ring = MIXTURES["ring"]
    found = set(coverage.mixture_figures(ring.modes.repeat(2, 1), ring.modes, ring.sigma))
    known = evaluation_names([], labels=False, mixture=True, conditions=(), own=("mine",)).all()
    assert known == found | {"mine"}


def test_the_protocol_says_what_was_compared_with_what():
    line = evaluate(resizer="8 px to 8 x 8, none").protocol["classifier"]
    data = f"90 train of columns (data {pictures(90).fingerprint[:8]})"
    assert line.startswith(f"classifier (weights fixed): {data} against 60 generated")
    assert "resized to native: 8 px to 8 x 8, none" in line
    assert "subsets of 60" in line
    assert "k=3" in line
    assert "k=5 on 90 against 60" in line


def test_the_protocols_of_two_folders_differ_though_their_source_is_called_the_same():
    lines = []
    for seed in (0, 0, 1):
        reference = pictures(90, seed)
        evaluator = Evaluator(
            reference=reference, extractors=[Projection()], samples=60, world=World()
        )
        lines.append(evaluator(generator_of(60)).protocol)
        assert reference.fingerprint is reference.fingerprint, "every value is read once"
    for family in ("classifier", "modes"):
        first, again, other = (protocol[family] for protocol in lines)
        assert first == again != other


def test_the_protocol_says_whose_shares_the_modes_are_compared_with():
    for split in ("train", "test"):
        evaluator = Evaluator(
            reference=pictures(90, split=split), extractors=[Projection()], samples=60,
            world=World(),
        )  # fmt: skip
        line = evaluator(generator_of(60)).protocol["modes"]
        assert f", their shares against those of {split}'s own labels: 90 {split} of" in line


def test_conditional_recall_of_a_class_is_by_the_fakes_of_that_class():
    result = evaluate(conditional=True)
    real = Projection().features(to_unit_range(pictures(90).tensors["image"]))[0]
    fake = Projection().features(to_unit_range(to_pixels(generator_of(60)(torch.arange(60)))))[0]
    expected = manifold.class_recall(real, torch.arange(90) % 3, fake, torch.arange(60) % 3, 3)
    assert result.per_class["class_recall_classifier"] == pytest.approx(expected.tolist())
    assert "class recall by the fakes of the class" in result.protocol["classifier"]
    unconditional = evaluate().per_class["class_recall_classifier"]
    assert unconditional != result.per_class["class_recall_classifier"]


def test_a_conditional_evaluation_insists_on_labels():
    evaluator = Evaluator(
        reference=pictures(30),
        extractors=[Projection()],
        samples=30,
        world=World(),
        conditional=True,
    )
    with pytest.raises(ValueError, match="needs 30 labels"):
        evaluator(generator_of(30))


def test_mixtures_are_judged_by_their_modes():
    mixture = MIXTURES["ring"]
    spec = DataSpec({"point": TensorSpec((2,))}, target="point")
    reference = Examples({"point": mixture.modes}, spec, "ring")
    evaluator = Evaluator(
        reference=reference, extractors=(), samples=100, world=World(), mixture=mixture
    )
    result = evaluator(lambda index: mixture.modes[index % 4])
    assert result.figures == {
        "mode_kl": pytest.approx(math.log(2)),  # half of the modes, evenly
        "least_mode_ratio": 0,
        "modes_covered": 4,
        "high_quality_share": 1,
        "smallest_mode_share": 0,
        "mode_spread": 0,
    }
    assert "PacGAN: 100 generated points" in result.protocol["modes"]


def test_real_features_are_kept_by_content_and_made_again_when_damaged(tmp_path):
    first = evaluate(cache=tmp_path)
    (path,) = tmp_path.iterdir()
    Projection.calls = 0
    again = evaluate(cache=tmp_path)
    from_cache = Projection.calls
    path.write_bytes(path.read_bytes()[:200])
    Projection.calls = 0
    repaired = evaluate(cache=tmp_path)
    save_tensors(path, {"features": torch.zeros(3, 6)}, {})
    replaced = evaluate(cache=tmp_path)
    assert first.figures == again.figures == repaired.figures == replaced.figures
    assert from_cache < Projection.calls


def test_samples_that_are_not_finite_make_every_figure_nan(caplog):
    evaluator = Evaluator(
        reference=pictures(30), extractors=[Projection()], samples=20, world=World()
    )

    def broken(index: Tensor) -> Tensor:
        images = generator_of(20)(index)
        images[index == 5] = math.nan
        images[index == 6, :, 3, 3] = math.inf
        return images

    usual, ruined = evaluator(generator_of(20)), evaluator(broken)
    assert set(usual.figures) == set(ruined.figures)
    assert not any(math.isnan(v) for v in usual.figures.values())
    assert all(math.isnan(v) for v in ruined.figures.values())
    assert "2 of 20 generated samples are not finite" in caplog.text


def test_a_generator_of_the_wrong_shape_is_refused():
    evaluator = Evaluator(
        reference=pictures(30), extractors=[Projection()], samples=20, world=World()
    )
    with pytest.raises(ValueError, match=r"\(20, 1, 9, 9\), not \(20, 1, 8, 8\)"):
        evaluator(lambda index: torch.zeros(len(index), 1, 9, 9))


def test_evaluation_disturbs_nothing():
    parameter = torch.ones(1, requires_grad=True)
    evaluator = Evaluator(
        reference=pictures(30), extractors=[Projection()], samples=20, world=World()
    )
    torch.manual_seed(11)
    before = torch.get_rng_state()
    precision = torch.backends.cudnn.conv.fp32_precision
    seen = []

    def generate(index: Tensor) -> Tensor:
        images = generator_of(20)(index) * parameter
        seen.append(images.requires_grad)
        return images

    evaluator(generate)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.backends.cudnn.conv.fp32_precision == precision
    assert torch.is_grad_enabled()
    assert set(seen) == {False}
    assert parameter.grad is None


@pytest.mark.parametrize("count", [1, 7, 16, 17, 50])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_windows_have_one_length_and_their_new_parts_tile_everything(count, size):
    if count < size:
        with pytest.raises(ValueError, match="cannot be shared"):
            list(windows(World(0, size), count, 8))
        return
    covered = []
    for rank in range(size):
        for window, new in windows(World(rank, size), count, 8):
            index = range(count)[window]
            assert len(index) == min(8, count)
            covered += index[new]
    assert covered == list(range(count))


def together(world: World, cache: Path | None = None) -> dict[str, float]:
    """What every world must agree on: a trained classifier's figures, and Parzen's."""
    train, test = pictures(90), pictures(31, 5, "test")
    extractor = create_extractor("classifier", world=world, train=train, test=test, cache=cache)
    result = evaluate(
        world, samples=51, extractors=[extractor], cache=cache, conditional=True
    ).figures
    parzen = parzen_figures(
        generator_of(51), validation=train, test=test, world=world, samples=51, batch_size=8
    )
    return {**result, **parzen, "test_accuracy": extractor.test_accuracy}


def _fail() -> None:
    raise UserError("the disk is on fire")


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    world = World(rank, 2)
    # Only rank 0 has a cache: machines need not share a disk.
    figures = together(world, Path(folder) / f"cache{rank}")
    try:
        on_leader(world, _fail)
    except UserError as error:
        figures["error"] = str(error)  # type: ignore[assignment]
    (Path(folder) / f"{rank}.json").write_text(json.dumps(figures))
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads may outlive the group and abort an orderly exit


def test_two_ranks_get_the_figures_of_one_and_the_errors_of_the_first(tmp_path):
    mp.spawn(_rank, (str(tmp_path),), nprocs=2)  # type: ignore[attr-defined]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first.pop("error") == "the disk is on fire"
    assert (tmp_path / "cache0").exists()
    assert not (tmp_path / "cache1").exists()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = together(World())
    torch.set_num_threads(threads)
    assert set(alone) == set(first)
    for name, value in alone.items():
        assert first[name] == pytest.approx(value, rel=1e-6, abs=1e-6), name
