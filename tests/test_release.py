"""Released generators: the same samples from a file, and clear words for what cannot be had."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import gan_core.variants  # noqa: F401
from gan_core.config import make_config
from gan_core.data.examples import DataSpec, Examples, TensorSpec
from gan_core.engine.game import Game
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.observers import FolderObserver
from gan_core.release import (
    DESCRIPTION,
    WEIGHTS,
    ReleasedGenerator,
    load_generator,
    save_generator,
)
from gan_core.run import play
from gan_core.variant import create

SIZES = {
    "gan": {"latent": 3, "hidden": 16, "maxout_units": 4},
    "cgan": {"latent": 3, "hidden_latent": 5, "hidden_label": 6, "hidden": 16, "maxout_units": 4},
    "dcgan": {"latent": 3, "width": 2, "image_size": 16, "ema": 0.9},
    "sngan": {"latent": 3, "width_g": 4, "width_d": 4, "image_size": 16, "conditional": True},
}
INDEX = torch.arange(12)


def test_what_a_generator_is_not_asked_for_or_given_by_that_name_is_refused(tmp_path: Path) -> None:
    for variant in ("cgan", "gan"):
        release(tmp_path / variant, variant)
    classes, plain = (load_generator(tmp_path / variant) for variant in ("cgan", "gan"))
    third = torch.full((12,), 3)
    asked = classes.generate(INDEX, third)
    assert asked.equal(classes.generate(INDEX, conditions={"label": third}))
    assert not asked.equal(classes.generate(INDEX))
    with pytest.raises(UserError, match="unknown condition of cgan 'lable'"):
        classes.generate(INDEX, conditions={"lable": third})
    with pytest.raises(UserError, match="unknown noise of gan 'z': choose from: latent"):
        plain.generate(INDEX, noise={"z": torch.zeros(12, 3)})
    with pytest.raises(UserError, match=r"this generator \(gan\) knows no classes"):
        plain.generate(INDEX, third)


def pictures(size: int = 8, classes: int = 4) -> Examples:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 1, size, size), generator=generator).to(torch.uint8)
    specs = {"image": TensorSpec((1, size, size), -1, 1), "label": TensorSpec((), classes=classes)}
    return Examples({"image": images, "label": torch.arange(20) % classes}, DataSpec(specs), "toys")


def trained(variant: str, examples: Examples) -> Game:
    options = {**SIZES[variant], "batch_size": 10}
    game = Game(
        create(variant, examples.spec, options, 2), examples, examples, batch_size=10, seed=2
    )
    game.play(2)
    return game


def release(folder: Path, variant: str, examples: Examples | None = None) -> Game:
    examples = examples or pictures()
    game = trained(variant, examples)
    config = make_config({"variant": variant, "seed": 2, **SIZES[variant], "batch_size": 10})
    save_generator(
        folder,
        game.sampler(),
        config=config.to_dict(),
        spec=examples.spec,
        step=2,
        figures={"fid": 3.0},
        protocol={"fid": "how"},
    )
    return game


@pytest.mark.parametrize("variant", SIZES)
def test_a_loaded_generator_makes_the_samples_of_the_trained_one(
    variant: str, tmp_path: Path
) -> None:
    game = release(tmp_path, variant)
    sampler = game.sampler()
    labels = sampler.conditions(INDEX).get("label")
    before = torch.get_rng_state()
    generator = load_generator(tmp_path)
    found = generator.generate(INDEX, labels)
    assert torch.equal(found, sampler(INDEX)["image"])
    assert torch.equal(torch.get_rng_state(), before)
    assert generator.conditional == (variant in ("cgan", "sngan"))
    assert generator.spec == pictures().spec
    assert (generator.info["step"], generator.info["figures"]) == (2, {"fid": 3.0})
    assert not found.requires_grad


def test_a_generator_given_its_own_noise_makes_the_same_and_other_noise_another(
    tmp_path: Path,
) -> None:
    release(tmp_path, "gan")
    generator = load_generator(tmp_path)
    whole = generator.generate(INDEX)
    noise = generator.noise(INDEX)
    assert set(noise) == {"latent"}
    assert torch.equal(generator.generate(INDEX, noise=noise), whole)
    flipped = {"latent": noise["latent"].flip(0)}
    torch.testing.assert_close(generator.generate(INDEX, noise=flipped), whole.flip(0))
    assert not torch.equal(generator.generate(INDEX, seed=77), whole)
    assert torch.equal(
        generator.generate(INDEX, noise=generator.noise(INDEX, 77)),
        generator.generate(INDEX, seed=77),
    )


def test_classes_are_drawn_evenly_where_none_are_asked_for(tmp_path: Path) -> None:
    release(tmp_path, "cgan")
    generator = load_generator(tmp_path)
    without = generator.generate(INDEX)
    matches = [
        {
            c
            for c in range(4)
            if torch.equal(
                generator.generate(INDEX[i : i + 1], torch.tensor([c])), without[i : i + 1]
            )
        }
        for i in range(12)
    ]
    assert sorted(c for found in matches for c in found) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


@pytest.mark.parametrize("labels", [[0, 1, 4], [0, -1, 2]])
def test_a_class_out_of_range_is_refused(labels: list[int], tmp_path: Path) -> None:
    release(tmp_path, "cgan")
    with pytest.raises(UserError, match=r"^classes go from 0 to 3$"):
        load_generator(tmp_path).generate(torch.arange(3), torch.tensor(labels))


def test_labels_that_are_too_few_are_refused(tmp_path: Path) -> None:
    release(tmp_path, "cgan")
    with pytest.raises(UserError, match=r"^12 samples need as many labels, not 2$"):
        load_generator(tmp_path).generate(INDEX, torch.tensor([0, 1]))


@pytest.mark.parametrize("size", [8, 12, 16])
def test_native_samples_have_the_source_s_size(size: int, tmp_path: Path) -> None:
    game = release(tmp_path, "dcgan", pictures(size))
    generator = load_generator(tmp_path)
    assert generator.generate(INDEX).shape == (12, 1, 16, 16)
    native = generator.generate(INDEX, native=True)
    assert native.shape == (12, 1, size, size)
    view = game.stage.view
    assert torch.equal(native, view.restore(generator.generate(INDEX), (1, size, size)))
    assert native.abs().max() <= 1


def test_native_samples_are_restored_by_the_view_of_their_stage(tmp_path: Path) -> None:
    game = release(tmp_path, "dcgan")
    found = load_generator(tmp_path)

    class Twofold(type(found.variant)):  # type: ignore[misc]
        def view(self, spec):
            raise AssertionError("the view that networks are built for is another stage's")

    variant = found.variant
    stages = variant.stages()
    variant.__class__ = Twofold
    variant.stages = lambda: stages  # type: ignore[method-assign]
    other = ReleasedGenerator(variant, found.spec, found.info, found.device)
    restored = game.stage.view.restore(other.generate(INDEX), (1, 8, 8))
    assert torch.equal(other.generate(INDEX, native=True), restored)


def test_a_run_gives_its_best_else_its_last_and_a_checkpoint_gives_its_own(tmp_path: Path) -> None:
    def run(name: str, **values: object) -> Path:
        config = make_config(
            {
                **{"variant": "gan", "data": "ring", "storage": str(tmp_path), "name": name},
                **{"workers": 0, "device": "cpu", "samples": 40, "batch_size": 16, "steps": 4},
                **{"log_every": 2, "evaluate_every": 2, "checkpoint_every": 2, "latent": 3},
                **values,
            }
        )
        play(config, World(), FolderObserver(config.folder, World()))
        return config.folder

    folder = run("points")
    best, last = (load_generator(folder / "generator" / n) for n in ("best", "last"))
    assert torch.equal(load_generator(folder).generate(INDEX), best.generate(INDEX))
    assert load_generator(folder).info["step"] == best.info["step"]
    assert set(best.info["protocol"]) == {"modes"}
    early = load_generator(folder / "checkpoints" / "step_00000002")
    assert (early.info["step"], last.info["step"]) == (2, 4)
    (folder / "generator" / "best" / DESCRIPTION).unlink()
    with pytest.raises(UserError, match=r"best is damaged: .*; .*/generator/last is there"):
        load_generator(folder)
    shutil.rmtree(folder / "generator" / "best")
    assert torch.equal(load_generator(folder).generate(INDEX), last.generate(INDEX))
    shutil.rmtree(folder / "generator")
    assert torch.equal(load_generator(str(folder)).generate(INDEX), last.generate(INDEX))
    shutil.rmtree(folder / "checkpoints" / "step_00000004")
    assert torch.equal(load_generator(folder).generate(INDEX), early.generate(INDEX))


def cut_weights(folder: Path) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-50])


def other_shapes(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file({k: v[:1].contiguous() for k, v in weights.items()}, folder / WEIGHTS)


def fewer_weights(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    weights.pop(sorted(weights)[0])
    save_file(weights, folder / WEIGHTS)


DAMAGES = {
    "cut": (cut_weights, "is damaged"),
    "empty": (lambda f: (f / WEIGHTS).write_bytes(b""), "is damaged"),
    "shapes": (other_shapes, "do not fit the generator"),
    "fewer": (fewer_weights, "do not fit the generator"),
    "no words": (lambda f: (f / DESCRIPTION).write_text('{"format"'), "is damaged"),
    "bytes": (lambda f: (f / DESCRIPTION).write_bytes(b"\xff\xfe\x00"), "is damaged"),
    "list": (lambda f: (f / DESCRIPTION).write_text("[]"), "is not of this program's format 1"),
    "format": (lambda f: (f / DESCRIPTION).write_text('{"format": 9}'), "is not of this program's"),
    "gaps": (lambda f: (f / DESCRIPTION).write_text('{"format": 1}'), "is not of this program's"),
    "weightless": (lambda f: (f / WEIGHTS).unlink(), "is damaged: No such file"),
    "untold": (lambda f: (f / DESCRIPTION).unlink(), r"is damaged: .*No such file"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_release_is_told_in_one_line(damage: str, tmp_path: Path) -> None:
    release(tmp_path, "gan")
    harm, told = DAMAGES[damage]
    harm(tmp_path)
    with pytest.raises(UserError, match=told) as caught:
        load_generator(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_batch_statistics_of_truncated_samples_are_of_the_classes_as_training_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    even = pictures(classes=2)
    labels = (torch.arange(20) < 3).long()  # 17 of class 0, 3 of class 1
    unbalanced = dataclasses.replace(even, tensors={**even.tensors, "label": labels})
    release(tmp_path, "sngan", unbalanced)
    generator = load_generator(tmp_path)
    asked: list[torch.Tensor] = []
    generate = ReleasedGenerator.generate

    def noted(self: ReleasedGenerator, index: torch.Tensor, *given: Any) -> torch.Tensor:
        asked.append(given[0])
        return generate(self, index, *given)

    monkeypatch.setattr(ReleasedGenerator, "generate", noted)
    generator.settled(0.5)
    counts = torch.bincount(torch.cat(asked))
    assert len(torch.cat(asked)) == counts.sum()
    assert counts[1] / counts.sum() == pytest.approx(3 / 20, abs=0.005)
    assert all(0 < labels.sum() < len(labels) for labels in asked), "in no order"
    description = json.loads((tmp_path / DESCRIPTION).read_text())
    del description["class_counts"]  # as earlier versions wrote it
    (tmp_path / DESCRIPTION).write_text(json.dumps(description))
    asked.clear()
    load_generator(tmp_path).settled(0.5)
    assert asked
    assert all(labels is None for labels in asked)


def test_the_folder_generator_of_a_run_stands_for_its_best(tmp_path: Path) -> None:
    release(tmp_path / "run" / "generator" / "best", "gan")
    assert load_generator(tmp_path / "run" / "generator").variant.name == "gan"


def test_where_nothing_is_nothing_is_found(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "none", tmp_path / "file"):
        with pytest.raises(UserError, match="no generator at"):
            load_generator(path)


def test_a_release_is_whole_or_absent_and_leaves_no_scraps(tmp_path: Path) -> None:
    release(tmp_path, "gan")
    assert sorted(p.name for p in tmp_path.iterdir()) == [DESCRIPTION, WEIGHTS]
    described = json.loads((tmp_path / DESCRIPTION).read_text())
    assert DataSpec.from_dict(described["spec"]) == pictures().spec


def test_weights_that_two_layers_share_can_be_released(tmp_path: Path) -> None:
    game = trained("gan", pictures())
    body = game.variant.generator.body  # type: ignore[union-attr]
    assert isinstance(body, nn.Sequential)
    sampler = game.sampler()
    network = sampler.network("generator")
    network.twin = network.body[0]  # type: ignore[union-attr]
    save_generator(tmp_path, sampler, config={}, spec=pictures().spec, step=1)
    weights = load_file(tmp_path / WEIGHTS)
    assert torch.equal(weights["generator.twin.weight"], weights["generator.body.0.weight"])


@pytest.mark.integration
def test_a_release_can_be_used_by_another_process_without_the_engine_s_help(
    tmp_path: Path,
) -> None:
    release(tmp_path, "dcgan")
    script = (
        "import sys, torch; from gan_core.release import load_generator; "
        "torch.save(load_generator(sys.argv[1]).generate(torch.arange(12)), sys.argv[2])"
    )
    made = tmp_path / "made.pt"
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", script, tmp_path, made], check=True, cwd=root, timeout=60)
    found = torch.load(made, weights_only=True)
    torch.testing.assert_close(found, load_generator(tmp_path).generate(INDEX), rtol=0, atol=1e-6)
