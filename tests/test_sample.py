"""What ``sample`` can draw: truncation, walks through classes and noise, nearest neighbours."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gan_core.config import make_config, write_config
from gan_core.data.digits import Digits
from gan_core.data.examples import Examples, Split, to_pixels
from gan_core.data.sources import SOURCES
from gan_core.engine.averaging import STATISTICS_BATCH, STATISTICS_BATCHES
from gan_core.engine.game import Game
from gan_core.errors import UserError
from gan_core.metrics import extractors as _extractors  # noqa: F401  (registers them)
from gan_core.metrics.features import EXTRACTORS, Extractor, ExtractorSetup
from gan_core.pictures import image_grid, neighbour_rows
from gan_core.preparing import build_variant
from gan_core.priors import Gaussian, Integers, TruncatedGaussian, Uniform, draw, truncated
from gan_core.release import ReleasedGenerator, load_generator, save_generator
from gan_core.variant import VARIANTS, NoiseSpec
from pipelines import __main__ as command
from pipelines.sample import (
    Rows,
    SampleOptions,
    _class_number,
    arranged,
    chosen_classes,
    class_of_rows,
)
from pipelines.walks import class_walks

TINY = {
    "cgan": {"hidden": 8, "maxout_units": 4},
    "sngan": {"width_g": 2, "width_d": 2, "image_size": 16, "conditional": True, "k": 1},
    "acgan": {"width_g": 2, "width_d": 2, "image_size": 16},
    "biggan": {"width_g": 2, "width_d": 2, "image_size": 16, "k": 1},
    "dcgan": {"width": 2, "image_size": 16, "prior": "uniform"},
}


class Pixels(Extractor):
    """The pixels themselves."""

    name = "mobilenet_v2"

    @classmethod
    def create(cls, setup: ExtractorSetup) -> Pixels:
        return cls(torch.nn.Identity(), {"weights": "none"}, setup.world.device)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        return images.flatten(1), None


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each variant as it begins: what ``sample`` needs of it."""
    folder = tmp_path_factory.mktemp("runs")
    train = Digits().load("train").select(torch.arange(20))
    for variant, sizes in TINY.items():
        config = make_config({
            "variant": variant, "storage": str(folder), "name": variant, "workers": 0,
            "latent": 6, "extractor": "none", **sizes,
        })  # fmt: skip
        game = Game(build_variant(config, train), train, train, batch_size=4)
        save_generator(
            config.folder / "generator" / "last",
            game.sampler(averaged=False),
            config=config.to_dict(),
            spec=train.spec,
            step=0,
        )
        write_config(config, config.folder / "config.yaml")
    return folder


def opened(storage: Path, variant: str) -> ReleasedGenerator:
    return load_generator(storage / variant)


def refused(words: str, storage: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert command.main([*f"sample {words}".split(), "--storage", str(storage)]) == 2
    return capsys.readouterr().err


# -- truncation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [0.04, 0.5, 2.0])
def test_truncated_noise_is_within_the_bound_and_distributed_as_what_is_left(bound: float) -> None:
    values = draw(TruncatedGaussian(bound), 3, torch.arange(20_000), (4,)).double()
    assert values.abs().max() <= torch.tensor(bound)
    found = values.flatten().sort().values
    low = torch.special.ndtr(torch.tensor(-bound, dtype=torch.float64))
    share = (torch.special.ndtr(found) - low) / (1 - 2 * low)
    expected = (torch.arange(len(found)) + 0.5) / len(found)
    assert (share - expected).abs().max() < 1.95 / len(found) ** 0.5  # Kolmogorov, 0.1 %


def test_each_prior_has_its_truncated_form() -> None:
    assert truncated(Gaussian(), 0.3) == TruncatedGaussian(0.3)
    assert truncated(Uniform(-1.0, 1.0), 0.3) == Uniform(-0.3, 0.3)
    assert truncated(Uniform(0.0, 1.0), 0.5) == Uniform(0.25, 0.75)
    assert truncated(Uniform(-1.0, 1.0), 9.0) == Uniform(-1.0, 1.0)
    assert truncated(Integers(4), 0.3) is None


@pytest.mark.parametrize("variant", ["sngan", "dcgan"])
def test_truncation_draws_again_only_what_is_too_large(variant: str, storage: Path) -> None:
    generator, index = opened(storage, variant), torch.arange(500)
    plain = generator.noise(index)["latent"]
    cut = generator.noise(index, truncation=0.5)["latent"]
    small = plain.abs() <= 0.5
    assert 0.2 < small.double().mean() < 0.6
    assert torch.equal(cut[small], plain[small])
    assert cut.abs().max() <= 0.5
    # The share below a half of the bound is that of the whole truncated distribution.
    inner = (cut.abs() <= 0.25).double().mean().item()
    expected = 0.5155 if variant == "sngan" else 0.5
    assert inner == pytest.approx(expected, abs=0.03)
    assert torch.equal(generator.noise(index, truncation=9.0)["latent"], plain)


def test_truncation_leaves_the_middle_of_a_prior_that_has_zero_at_its_edge(storage: Path) -> None:
    generator, index = opened(storage, "cgan"), torch.arange(500)
    plain, cut = (generator.noise(index, truncation=t)["latent"] for t in (None, 0.4))
    assert 0 <= plain.min() < 0.05
    assert plain.max() > 0.95
    assert cut.min() >= 0.3
    assert cut.max() <= 0.7
    inside = (plain >= 0.3) & (plain <= 0.7)
    assert torch.equal(cut[inside], plain[inside])


def test_the_picture_is_made_from_truncated_noise(
    storage: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    line = f"sample dcgan --n 4 --truncation 0.2 --out {tmp_path / 'a.png'}"
    assert command.main([*line.split(), "--storage", str(storage)]) == 0
    capsys.readouterr()
    generator, index = opened(storage, "dcgan").settled(0.2), torch.arange(4)
    images = generator.generate(index, noise=generator.noise(index, truncation=0.2))
    found = np.asarray(Image.open(tmp_path / "a.png"))
    assert np.array_equal(found, image_grid(images)[0].numpy())
    assert not torch.equal(images, generator.generate(index))


def test_batch_statistics_under_truncation_are_those_of_truncated_samples(storage: Path) -> None:
    generator = opened(storage, "dcgan")
    before = {n: t.clone() for n, t in generator.variant.state_dict().items()}
    settled = generator.settled(0.3)
    norm = settled.variant.generator.layers[0]
    index = torch.arange(STATISTICS_BATCH * STATISTICS_BATCHES)
    noise = generator.noise(index, truncation=0.3)["latent"]
    seen = generator.variant.generator.project(noise).unflatten(1, (-1, 4, 4))
    torch.testing.assert_close(norm.running_mean, seen.mean((0, 2, 3)), atol=1e-6, rtol=1e-4)
    batches = torch.stack([b.var((0, 2, 3)) for b in seen.split(STATISTICS_BATCH)])
    torch.testing.assert_close(norm.running_var, batches.mean(0), atol=1e-8, rtol=1e-4)
    assert not norm.training
    after = generator.variant.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before)
    plain = opened(storage, "cgan")
    assert plain.settled(0.3) is plain  # it has no batch statistics


# -- walks ---------------------------------------------------------------------------------------


def test_class_walks_go_evenly_from_each_class_to_the_next() -> None:
    found = class_walks([4, 1], 5, rows=3, columns=3)
    assert found.tolist() == [
        *([0, 0, 0, 0, 1], [0, 0.5, 0, 0, 0.5], [0, 1, 0, 0, 0]),
        *([0, 1, 0, 0, 0], [0, 0.5, 0, 0, 0.5], [0, 0, 0, 0, 1]),
        *([0, 0, 0, 0, 1], [0, 0.5, 0, 0, 0.5], [0, 1, 0, 0, 0]),
    ]


@pytest.mark.parametrize("variant", ["cgan", "sngan", "acgan", "biggan"])
def test_a_walk_through_classes_begins_and_ends_at_them_with_one_noise(
    variant: str, storage: Path
) -> None:
    generator = opened(storage, variant)
    with torch.no_grad():  # two updates teach these nothing of classes
        for name, weight in generator.variant.generator.named_parameters():
            if "gain" in name or "embed" in name or "project" in name:
                weight.normal_()
    options = SampleOptions(n=6, classes="2,7", interpolate_classes=True)
    rows = arranged(generator, options)
    assert (len(rows.index), rows.columns) == (6, 3)
    images = generator.generate(rows.index, rows.labels, rows.noise)
    still = generator.noise(torch.arange(2))["latent"]
    for place, (row, label) in {0: (0, 2), 2: (0, 7), 3: (1, 7), 5: (1, 2)}.items():
        expected = generator.generate(
            torch.tensor([0]), torch.tensor([label]), {"latent": still[row : row + 1]}
        )
        torch.testing.assert_close(images[place], expected[0])
    for row in (images[:3], images[3:]):
        assert torch.pdist(row.flatten(1)).min() > 1e-4


def test_mixtures_must_have_a_column_for_each_class(storage: Path) -> None:
    generator = opened(storage, "sngan")
    with pytest.raises(ValueError, match="mixtures of 10 classes have a column for each"):
        generator.generate(torch.arange(2), torch.rand(2, 3))


@pytest.mark.parametrize(
    ("n", "classes", "rows", "columns"),
    [(64, None, 10, 6), (16, None, 2, 8), (10, "4,5", 2, 5), (3, None, 1, 3), (40, "1", 5, 8)],
)
def test_walks_fill_whole_rows(
    n: int, classes: str | None, rows: int, columns: int, storage: Path
) -> None:
    found = arranged(
        opened(storage, "sngan"), SampleOptions(n=n, classes=classes, interpolate=True)
    )
    assert (len(found.index), found.columns) == (rows * columns, columns)
    assert found.labels is not None
    assert all(len(row.unique()) == 1 for row in found.labels.split(columns))
    assert found.index.tolist() == [row for row in range(rows) for _ in range(columns)]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("sngan --interpolate --interpolate-classes", "choose one of --interpolate"),
        ("sngan --interpolate --neighbours 2", "choose one of --interpolate"),
        ("dcgan --interpolate-classes", "--interpolate-classes needs a conditional variant"),
        ("sngan --interpolate-classes --classes 3", "needs at least two classes"),
        ("sngan --interpolate-classes --n 1", "ask for a larger --n"),
        ("sngan --extractor classifier", "--extractor is for --neighbours, of which none are"),
        ("sngan --data-root .", "--data-root is for --neighbours, of which none are"),
        ("sngan --truncation 0", "--truncation must be greater than 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    words: str, told: str, storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told in refused(words, storage, capsys)


@pytest.mark.parametrize("words", ["--truncation 1", "--interpolate"])
@pytest.mark.parametrize(
    "noise",
    [(), (NoiseSpec("masks", (3,), Integers(4)),), (NoiseSpec("mix", (), Uniform(), ("d",)),)],
    ids=["none", "masks", "not the generator's"],
)
def test_what_is_about_noise_needs_some_that_is_continuous(
    words: str,
    noise: tuple[NoiseSpec, ...],
    storage: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(VARIANTS["dcgan"], "noise", lambda self, stage: noise)
    told = refused(f"dcgan {words}", storage, capsys)
    assert "dcgan's takes none that has a middle and tails: leave it out" in told


# -- neighbours ----------------------------------------------------------------------------------


def test_neighbours_are_the_nearest_training_pictures_by_brute_force(
    storage: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Few(Digits):
        """A hundred digits, so that brute force is quick."""

        def load(self, split: Split) -> Examples:
            return super().load(split).select(torch.arange(100))

    monkeypatch.setitem(SOURCES._entries, "digits", Few)
    monkeypatch.setitem(EXTRACTORS._entries, "mobilenet_v2", Pixels)
    out = tmp_path / "near.png"
    line = f"sample cgan --n 3 --neighbours 4 --extractor mobilenet_v2 --out {out}"
    assert command.main([*line.split(), "--storage", str(storage)]) == 0
    told = capsys.readouterr().err
    generator, index = opened(storage, "cgan"), torch.arange(3)
    images = to_pixels(generator.generate(index, index, native=True))
    train = Few().load("train").tensors["image"]
    rows, nearest = [], []
    for image in images:
        distances = [(image.double() - other.double()).norm().item() for other in train]
        rows.append(train[torch.tensor(distances).argsort()[:4]])
        nearest.append(2 * min(distances) / 255)  # the extractor's pixels are from -1 to 1
    expected = neighbour_rows(images, torch.stack(rows))
    assert np.array_equal(np.asarray(Image.open(out)), expected[0].numpy())
    among = torch.cdist(*[2 * train.flatten(1).double() / 255] * 2).fill_diagonal_(torch.inf)
    near = among.min(1).values.quantile(0.01)
    low, middle, high = sorted(nearest)
    assert f"{low:.3g} to {high:.3g} away, median {middle:.3g} (features of mobilenet_v2)" in told
    assert f"; {sum(n <= near for n in nearest)} of 3 at most {near:.3g}, as 1 in 100" in told


def test_the_classes_of_rows_are_told_by_name() -> None:
    def told(labels: list[int] | None, columns: int | None) -> list[str]:
        found = None if labels is None else torch.tensor(labels)
        rows = Rows(torch.arange(4), found, columns, {})
        return class_of_rows(rows, ("red", "green", "blue"))

    assert told([2, 2, 0, 0], 2) == ["blue", "red"]
    assert told([1, 1, 1, 1], 3) == ["green", "green"], "the last row is not full"
    assert told([2, 2, 0, 0], 4) == [], "a row of several"
    assert told(None, 2) == told([2, 2, 0, 0], None) == []
    mixed = Rows(torch.arange(2), torch.eye(2, 3), 1, {})
    assert class_of_rows(mixed, ("red", "green", "blue")) == []


def test_a_row_is_the_image_a_gap_and_its_neighbours() -> None:
    images = torch.arange(2 * 3 * 8 * 8, dtype=torch.uint8).reshape(2, 3, 8, 8)
    others = torch.randint(255, (2, 5, 3, 8, 8), dtype=torch.uint8)
    picture = neighbour_rows(images, others)
    alone, grid = image_grid(images, columns=1), image_grid(others.flatten(0, 1), columns=5)
    assert torch.equal(picture[:, :, : alone.shape[2]], alone)
    assert torch.equal(picture[:, :, -grid.shape[2] :], grid)
    assert (picture[:, :, alone.shape[2] : -grid.shape[2]] == 255).all()


def test_without_features_there_are_no_neighbours(
    storage: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipelines.neighbours.load", None)  # it is refused before that
    told = refused("cgan --neighbours 2", storage, capsys)  # the run had --extractor none
    assert "--neighbours needs features: name an --extractor" in told


def test_where_classes_are_called_by_other_numbers_a_number_is_a_name() -> None:
    names = ("1", "10", "2")
    assert [_class_number(word, 3, names) for word in ("1", "10", "2")] == [0, 1, 2]
    with pytest.raises(UserError, match="class '0'"):
        _class_number("0", 3, names)
    assert [_class_number(word, 3, ("0", "1", "2")) for word in "012"] == [0, 1, 2]
    assert [_class_number(word, 2, ("cat", "dog")) for word in ("dog", "0")] == [1, 0]
    decomposed = unicodedata.normalize("NFD", "7 rote \u00c4pfel")
    assert _class_number("7 rote \u00c4pfel", 2, ("a", decomposed)) == 1


def test_a_class_may_have_commas_in_its_name() -> None:
    names = ("crayfish, crawfish", "tench")
    generator: Any = SimpleNamespace(
        spec=SimpleNamespace(classes=2, class_names=names), conditional=True
    )
    assert chosen_classes(generator, "crayfish, crawfish") == [0]
    assert chosen_classes(generator, "tench, 0") == [1, 0]
