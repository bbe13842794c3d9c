"""The command line: what the user says becomes the configuration, and what a run left is used."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from gan_core import judging
from gan_core.config import RunConfig, make_config, read_config, write_config
from gan_core.data.digits import Digits
from gan_core.data.examples import Examples, Split, to_pixels
from gan_core.data.sources import picture_spec
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.observers import FolderObserver, Observer
from gan_core.pictures import image_grid
from gan_core.priors import Gaussian, Uniform
from gan_core.release import load_generator
from gan_core.run import Run, play
from gan_core.variant import VARIANTS
from pipelines import __main__ as command
from pipelines import tracking
from pipelines.command_line import join_negative_numbers, show
from pipelines.comparison.entries import read_folder
from pipelines.evaluate import (
    EvaluateOptions,
    Scores,
    as_table,
    asked_labels,
    evaluate_command,
    family,
    nothing_to_measure,
    run_folder,
    scores_file,
    track,
)
from pipelines.launch import plan
from pipelines.run_folder import RunFolder
from pipelines.walks import path_between

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def planned(line: str) -> RunConfig:
    """The configuration that ``train line`` means."""
    config, _ = plan(line.split())
    assert config is not None
    return config


# -- from words to a configuration ---------------------------------------------------------------


def test_stages_that_are_played_apart_share_no_batches(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    words = f"lapgan --data cifar10 --data-root {tmp_path / 'data'} --storage {tmp_path}"
    assert planned(f"{words} --workers 3").workers == 3, "a level each, of batches of 128"
    with pytest.raises(UserError, match="--batch-size 128 cannot be divided by --workers 3"):
        planned(f"{words} --workers 3 --level 0")


def test_what_is_not_said_is_the_default() -> None:
    config = planned("gan")
    plain = make_config({"variant": "gan"})
    assert dataclasses.replace(config, name=None) == plain
    assert config.name is not None
    assert config.name.startswith("gan-digits-20")


def test_options_of_run_variant_and_source_find_their_places() -> None:
    config = planned(
        "--lr-d 1e-3 cgan --k=3 --data digits --on-bad-file skip --workers 2 --prior gaussian"
    )
    assert (config.variant, config.data, config.workers) == ("cgan", "digits", 2)
    assert (config.options["lr_d"], config.options["k"]) == (1e-3, 3)
    assert config.options["prior"] == "gaussian"
    assert config.data_options == {"on_bad_file": "skip"}


def test_the_command_line_wins_over_the_file_and_the_file_over_the_defaults() -> None:
    Path("run.yaml").write_text(
        "variant: gan\nsamples: 300\nlatent: 7\noptions: {k: 2, steps: 50}\nlog-every: 5\n"
    )
    config = planned("--config run.yaml --k 4 --samples 100")
    assert (config.samples, config.log_every) == (100, 5)
    options = config.options
    assert (options["k"], options["steps"], options["latent"]) == (4, 50, 7)
    assert options["batch_size"] == VARIANTS["gan"].Options().batch_size


def test_a_file_that_a_run_wrote_is_taken_back_whole() -> None:
    first = planned("cgan --k 2 --lr-g 0.5 --name first --on-bad-file skip")
    write_config(first, Path("first.yaml"))
    assert planned("--config first.yaml --name second") == dataclasses.replace(first, name="second")


def test_one_flag_sets_what_the_variant_and_the_source_both_have(tmp_path: Path) -> None:
    line = f"dcgan --data folder --data-root {tmp_path} --storage {tmp_path.parent} --image-size 64"
    both = planned(line)
    assert (both.options["image_size"], both.data_options["image_size"]) == (64, 64)
    own = planned(f"{line} --data-image-size 99")
    assert (own.options["image_size"], own.data_options["image_size"]) == (64, 99)


def test_truth_values_are_flags_with_a_no(tmp_path: Path) -> None:
    line = f"gan --data folder --data-root {tmp_path} --storage {tmp_path.parent}"
    assert planned(f"--allow-upscale {line}").data_options == {"allow_upscale": True}
    assert planned(f"{line} --no-allow-upscale").data_options == {"allow_upscale": False}


def test_runs_of_the_same_second_get_names_of_their_own() -> None:
    names = set()
    for _ in range(3):
        config = planned("gan")
        config.folder.mkdir(parents=True)
        names.add(config.name)
    assert len(names) == 3


def test_a_resumed_run_keeps_what_it_was_and_takes_what_is_said(tmp_path: Path) -> None:
    old = planned("gan --data ring --k 2 --steps 10 --workers 0 --storage old --name mine")
    old.folder.mkdir(parents=True)
    write_config(old, old.folder / "config.yaml")
    for line in ("--resume mine --storage old --steps 20", "gan --resume old/mine --steps 20"):
        config, resume = plan(line.split())
        assert resume
        assert config is not None
        assert (config.data, config.options["k"], config.options["steps"]) == ("ring", 2, 20)
        assert config.folder == tmp_path / "old" / "mine"


def test_a_run_that_was_moved_is_resumed_where_it_is_now(tmp_path: Path) -> None:
    old = planned("gan --data ring --k 2 --workers 0 --name mine")
    old.folder.mkdir(parents=True)
    write_config(old, old.folder / "config.yaml")
    old.folder.rename(tmp_path / "elsewhere")
    Path("more.yaml").write_text("k: 3\nworkers: 2\n")
    config = planned("--resume elsewhere --config more.yaml --workers 0")
    assert config.folder == tmp_path / "elsewhere"
    assert (config.options["k"], config.workers) == (3, 0)


def test_negative_numbers_stay_with_their_options() -> None:
    words = ["--lr", "-1e-3", "--seed", "-2", "--k=1", "-x", "--y", "-inf", "--z", "-.5"]
    joined = ["--lr=-1e-3", "--seed=-2", "--k=1", "-x", "--y=-inf", "--z=-.5"]
    assert join_negative_numbers(words) == joined


def test_a_variant_of_ones_own_comes_in_by_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_package_for_a_test.py").write_text(
        "from gan_core.variant import VARIANTS, register\n"
        "@register('mine')\nclass Mine(VARIANTS['gan']):\n    summary = 'my own'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        config = planned("mine --plugin my_package_for_a_test --k 2")
        assert (config.variant, config.options["k"]) == ("mine", 2)
        assert config.plugins == ("my_package_for_a_test",)
    finally:
        VARIANTS._entries.pop("mine", None)
        sys.modules.pop("my_package_for_a_test", None)


# -- help and lists ------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["gan", "cgan", "dcgan"])
def test_help_of_a_variant_names_every_option_its_default_and_its_paper(
    variant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["train", variant, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert VARIANTS[variant].paper in text
    assert "%%" not in text
    fields = dataclasses.fields(VARIANTS[variant].Options)
    for field in [*fields, *dataclasses.fields(RunConfig)]:
        if field.name in ("variant", "options", "data_options", "begun_from", "plugins"):
            continue
        assert f"--{field.name.replace('_', '-')} " in text
        told = field.metadata["help"]
        default = field.default
        if isinstance(default, (int, str)) and not isinstance(default, bool):
            assert f"{told} (default: {default})" in text
        elif isinstance(default, float):
            found = re.search(re.escape(told) + r" \(default: ([^)]*)\)", text)
            assert found is not None
            assert float(found[1]) == default, field.name  # 1.000004 is not 1
        else:
            assert told in text


@pytest.mark.parametrize(
    ("variant", "told"),
    [
        ("dcgan", "the defaults are the paper's."),
        ("gan", "the defaults are the paper's for pictures; it has none for points."),
        ("acgan", "the paper's for CIFAR-10, but for batch normalisation after the generator's"),
        ("biggan", "the defaults are those of its authors' script for CIFAR-10 (batches of 50, k"),
        ("lapgan", "the paper's, but for the coarsest level's tanh and initial weights, pictures"),
        ("srgan", "the paper's, but that each square is turned and mirrored at random, eight ways"),
        ("stackgan", "where that says more (--kl); without the residual bottlenecks that"),
        ("midinet", "the paper's, but for the second generator update of each iteration, which"),
    ],
)
def test_help_names_what_of_the_defaults_is_not_the_papers(
    variant: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["train", variant, "--help"]) == 0
    head = capsys.readouterr().out.partition("what is learnt:")[0]
    assert told in " ".join(head.split())
    assert max(map(len, head.splitlines())) <= 100


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((1.000004, "1.000004"), (0.0002, "0.0002"), (0.1, "0.1"), (1.0, "1"), (1e-6, "1e-06")),
        *((0.1 + 0.2, "0.30000000000000004"), (16_777_217.0, "16777217"), ((0.5, 1), "0.5,1")),
    ],
)
def test_a_default_is_shown_in_the_shortest_text_that_reads_back(value: object, text: str) -> None:
    assert show(value) == text


@pytest.mark.parametrize("variant", ["gan", "sngan", "lapgan", "cyclegan", "stackgan", "midinet"])
def test_help_begins_with_what_is_set_first_and_keeps_remedies_under_their_own_heading(
    variant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["train", variant, "--help"]) == 0
    text = capsys.readouterr().out
    headings = (
        "\nthe game:\n",
        "\npenalties and remedies (",
        "\nwatching:\n",
        "\nwhere it runs:\n",
    )
    game, remedies, watching, place = (text.index(heading) for heading in headings)
    assert game < text.index("--steps N") < text.index("--batch-size N") < text.index("--seed N")
    assert text.index("--begin-from RUN") < remedies < watching < place
    fields = [field.name for field in dataclasses.fields(VARIANTS[variant].Options)]
    steadying = {"r1", "gradient_penalty", "diffaug", "packing", "unrolled", "penalty_stride"}
    for name in fields:
        found = re.search(rf"^  --{name.replace('_', '-')}[ ,]", text, re.MULTILINE)
        assert found is not None
        within = remedies < found.start() < watching
        assert within or name not in steadying
        assert not within or name not in ("loss", "k", "lr_d", "image_size", "width", "norm_d")


def test_help_without_a_variant_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    for variant in ("gan", "cgan", "dcgan"):
        assert VARIANTS[variant].summary in text
    assert command.main([]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {verb} " in text for verb in command.VERBS)


def test_the_list_for_programs_holds_every_kind_with_a_line_on_each(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command.main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    names = {kind: {entry["name"] for entry in entries} for kind, entries in found.items()}
    assert names["variants"] >= {"gan", "cgan", "dcgan"}
    assert names["sources"] >= {"digits", "mnist", "cifar10", "folder", "ring", "grid"}
    assert names["extractors"] >= {"inception", "mobilenet_v2", "classifier"}
    assert all(entry["summary"] for entries in found.values() for entry in entries)
    assert command.main(["list"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for kind in names.values() for name in kind)


# -- how the process ends ------------------------------------------------------------------------


def test_ctrl_c_leaves_quietly_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run", interrupted)
    assert command.main(["list"]) == 130
    assert capsys.readouterr().err == ""


def test_an_error_of_many_lines_is_told_in_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(_: object) -> int:
        raise UserError("first\n  second")

    monkeypatch.setattr(command, "run", wrong)
    assert command.main(["list"]) == 2
    assert capsys.readouterr().err == "error: first second\n"


def test_a_reader_that_goes_away_is_no_error() -> None:
    words = [sys.executable, "-m", "pipelines"]
    process = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(60) == 141


ALONE = """
import sys
from pipelines.__main__ import main
assert main(["--help"]) == 0 and main(["trian"]) == 2
assert "torch" not in sys.modules, "help must not wait for torch"
line = "train gan --data ring --workers 0 --hidden 4 --steps 2 --batch-size 4 --samples 20"
assert main(line.split() + ["--log-every", "1", "--name", "alone", "--device", "cpu"]) == 0
heavy = {"ray", "mlflow", "torchvision", "sklearn"} & set(sys.modules)
assert not heavy, heavy
"""


def test_without_workers_a_run_needs_neither_ray_nor_mlflow(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALONE],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path),
             "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    events = [json.loads(row) for row in Path("runs/alone/journal.jsonl").read_text().splitlines()]
    assert {1, 2} <= {event["step"] for event in events if event["kind"] == "metrics"}
    assert any("loss/generator" in event.get("values", {}) for event in events)
    assert json.loads(Path("runs/alone/summary.json").read_text())["status"] == "finished"
    assert "alone" in done.stdout
    assert "2/2" in done.stderr
    assert read_config(Path("runs/alone/config.yaml"))["workers"] == 0


# -- what a run left -----------------------------------------------------------------------------


def _trained(storage: Path, name: str, **options: object) -> Path:
    """The folder of a run of three steps on the CPU."""
    config = make_config({
        "storage": str(storage), "name": name, "workers": 0, "steps": 3, "batch_size": 8,
        "hidden": 8, "latent": 6, "samples": 64, "extractor": "none", "log_every": 3, **options,
    })  # fmt: skip
    config.folder.mkdir(parents=True)
    write_config(config, config.folder / "config.yaml")
    play(config, World(), FolderObserver(config.folder, World()))
    return config.folder


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of each kind: ``classes`` on digits by class, ``points`` on the ring."""
    folder = tmp_path_factory.mktemp("runs")
    _trained(folder, "classes", variant="cgan", data="digits", prior="gaussian")
    _trained(folder, "points", variant="gan", data="ring")
    return folder


def _sampled(line: str, storage: Path, capsys: pytest.CaptureFixture[str]) -> np.ndarray:
    """The picture that ``sample line`` makes."""
    assert command.main([*f"sample {line}".split(), "--storage", str(storage)]) == 0
    return np.asarray(Image.open(capsys.readouterr().out.strip()))


def _grid_of(images: torch.Tensor, columns: int) -> np.ndarray:
    return image_grid(to_pixels(images), columns)[0].numpy()


def test_a_sample_has_a_row_for_each_class_asked_for(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _sampled("classes --n 10 --classes 7,0,3 --out new/a.png", storage, capsys)
    generator = load_generator(storage / "classes")
    labels = torch.tensor([7, 7, 7, 0, 0, 0, 3, 3, 3])
    assert np.array_equal(found, _grid_of(generator.generate(torch.arange(9), labels), 3))


def test_without_a_choice_all_classes_have_their_rows(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _sampled("classes --n 20 --out a.png", storage, capsys)
    labels = torch.arange(10).repeat_interleave(2)
    generator = load_generator(storage / "classes")
    assert np.array_equal(found, _grid_of(generator.generate(torch.arange(20), labels), 2))


def test_the_seed_chooses_the_noise(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"classes --out a.png --seed {seed}" for seed in (0, 0, 1)]
    first, again, other = (_sampled(line, storage, capsys) for line in lines)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_an_interpolation_begins_and_ends_at_samples_of_its_class(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "classes --n 10 --classes 4,5 --interpolate --out a.png"
    found = _sampled(line, storage, capsys)
    generator = load_generator(storage / "classes")
    labels = torch.tensor([4, 4, 5, 5])
    ends = generator.generate(torch.arange(4), labels)
    tile = 64 + 2
    columns = [found[:, :tile], found[:, 4 * tile : 5 * tile]]
    expected = [_grid_of(ends[0::2], 1)[:, :tile], _grid_of(ends[1::2], 1)[:, :tile]]
    assert found.shape == (2 * tile + 2, 5 * tile + 2)
    for column, end in zip(columns, expected, strict=True):
        assert np.array_equal(column[:, 2:], end[:, 2:])
    middle = found[:, 2 * tile + 2 : 3 * tile]
    assert not np.array_equal(middle, columns[0][:, 2:])


def test_points_are_sampled_as_a_plot_over_the_real_ones(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _sampled("points --n 40 --out a.png", storage, capsys)
    assert found.shape == (512, 512, 3)
    grey = (found == 170).all(axis=2)[60:-2, 2:-2]
    assert grey.sum() > 100


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("classes --classes 10", "the classes go from 0 to 9"),
        ("classes --classes x", "unknown class 'x'"),
        ("points --classes 1", "needs a conditional variant"),
        ("classes --n 1 --interpolate", "ask for a larger --n"),
    ],
)
def test_what_a_generator_cannot_sample_is_refused(
    words: str, expected: str, storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*f"sample {words}".split(), "--storage", str(storage)]) == 2
    assert expected in capsys.readouterr().err


def test_a_picture_that_cannot_be_written_is_refused(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").write_text("in the way")
    words = ["sample", str(storage / "points"), "--out", "file/a.png"]
    assert command.main(words) == 2
    assert f"cannot write {Path.cwd()}/file/a.png" in capsys.readouterr().err


def test_weights_that_do_not_fit_their_description_are_refused(
    storage: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    generator = storage / "points" / "generator" / "last"
    folder = tmp_path / "foreign"
    folder.mkdir()
    (folder / "generator.safetensors").write_bytes(
        (generator / "generator.safetensors").read_bytes()
    )
    info = json.loads((generator / "generator.json").read_text())
    info["config"]["options"]["hidden"] = 9
    (folder / "generator.json").write_text(json.dumps(info))
    assert command.main(["sample", str(folder)]) == 2
    error = capsys.readouterr().err
    assert "do not fit the generator" in error
    assert error.count("\n") == 1


def test_a_spherical_path_keeps_to_its_sphere_and_moves_evenly() -> None:
    first, last = torch.nn.functional.normalize(
        torch.randn(2, 3, 16, dtype=torch.float64), dim=-1
    )  # fmt: skip
    share = torch.linspace(0, 1, 9, dtype=torch.float64)
    path = path_between(first, last, share, Gaussian()).reshape(3, 9, 16)
    assert torch.allclose(path.norm(dim=-1), torch.ones(3, 9, dtype=torch.float64))
    assert torch.allclose(path[:, 0], first)
    assert torch.allclose(path[:, -1], last)
    steps = (path[:, 1:] * path[:, :-1]).sum(-1).arccos()
    assert torch.allclose(steps, steps[:, :1].expand_as(steps))


def test_a_path_is_straight_for_a_uniform_prior_and_between_equal_ends() -> None:
    first, last = torch.rand(2, 3, 2, 2, dtype=torch.float64)
    share = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    path = path_between(first, last, share, Uniform()).reshape(3, 3, 2, 2)
    assert torch.allclose(path[:, 1], 0.75 * first + 0.25 * last)
    still = path_between(first, first, share, Gaussian()).reshape(3, 3, 2, 2)
    assert torch.allclose(still, first[:, None].expand_as(still))


def test_an_evaluation_repeats_the_figures_of_the_run(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"evaluate points --storage {storage} --samples 64"
    assert command.main(line.split()) == 0
    text = capsys.readouterr().out
    kept = json.loads(scores_file(storage / "points", "train").read_text())
    run = load_generator(storage / "points").info
    assert kept["figures"] == run["figures"]
    assert kept["step"] == run["step"] == 3
    for name in kept["figures"]:
        assert any(row.startswith(f"{name} ") and row.endswith("[1]") for row in text.splitlines())
    assert f"[1] {kept['protocol']['modes']}" in text


def test_an_evaluation_asks_for_the_classes_that_training_asked_for(storage: Path) -> None:
    values = read_config(storage / "classes" / "config.yaml")
    run = Run(make_config(values), World(), Observer())
    asked = run.game.sampler().conditions(torch.arange(64))["label"]
    assert torch.equal(asked_labels(run.train, run.config), asked)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_figures_against_held_out_examples_say_so_in_their_names(
    storage: Path, capsys: pytest.CaptureFixture[str], split: str
) -> None:
    line = f"evaluate points --storage {storage} --samples 64 --split {split}"
    assert command.main(line.split()) == 0
    assert f"{split}/modes_covered" in capsys.readouterr().out
    kept = json.loads(scores_file(storage / "points", split).read_text())
    assert f"{split}/modes_covered" in kept["figures"]


def test_a_split_of_one_picture_is_refused_in_a_line(
    storage: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Digits.load

    def of_one(source: Digits, split: Split) -> Examples:
        found = load(source, split)
        return found.select(torch.arange(1)) if split == "validation" else found

    monkeypatch.setattr(Digits, "load", of_one)
    monkeypatch.setattr(judging, "make_extractors", lambda *_: [SimpleNamespace(name="any")])
    words = ["evaluate", str(storage / "classes"), "--split", "validation"]
    assert command.main(words) == 2
    error = capsys.readouterr().err
    assert "the validation split of 'digits' holds 1 picture, and figures that compare" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_figures_on_what_was_trained_on_say_so(split: str, tmp_path: Path) -> None:
    told = {}
    for learned in ("train", "train+validation"):
        _trained(tmp_path, learned, variant="gan", data="ring", train_split=learned)
        words = ["evaluate", str(tmp_path / learned), "--samples", "64", "--split", split]
        assert command.main(words) == 0
        told[learned] = json.loads(scores_file(tmp_path / learned, split).read_text())["protocol"]
    last = "; trained on validation as well" if split == "validation" else ""
    assert told["train+validation"] == {"modes": told["train"]["modes"] + last}


def test_parzen_figures_stand_beside_those_of_training_images(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = next((storage / "classes" / "checkpoints").iterdir())
    assert command.main(["evaluate", str(checkpoint), "--parzen"]) == 0
    figures = json.loads(scores_file(storage / "classes", "train").read_text())["figures"]
    own, memory = figures["parzen_log_likelihood"], figures["parzen_training_log_likelihood"]
    # Three steps of training cannot come near to the training images themselves.
    assert own < memory
    assert figures["parzen_standard_error"] > 0
    assert "[2] 1257 training images" in capsys.readouterr().out


def test_what_cannot_be_measured_is_refused(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["evaluate", str(storage / "classes")]) == 2
    assert "nothing to measure with the run's --extractor none" in capsys.readouterr().err
    assert command.main(["evaluate", str(storage / "classes"), "--extractor", "none"]) == 2
    assert "nothing to measure with --extractor none: name one" in capsys.readouterr().err
    assert command.main(["evaluate", str(storage / "points"), "--parzen"]) == 2
    assert "--parzen is for pictures" in capsys.readouterr().err


def test_who_has_no_weights_is_told_where_to_give_them(
    storage: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "make_extractors", lambda *_: [])
    options, config = EvaluateOptions(), planned("gan --extractor auto")
    text = nothing_to_measure(picture_spec((1, 8, 8)), config, options)
    assert "--extractor auto takes inception or mobilenet_v2, and there is none here" in text
    assert "by --extractor-weights" in text
    words = ["evaluate", str(storage / "classes"), "--extractor", "auto"]
    assert command.main(words) == 2
    error = capsys.readouterr().err
    assert "nothing to measure: --extractor auto takes classifier" in error
    assert error.count("\n") == 1


def test_a_tracked_run_gets_its_figures_and_a_server_that_is_away_is_only_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(_: object) -> int:
        raise ConnectionError("no server")

    write_config(planned("gan --name mine"), tmp_path / "config.yaml")
    scores = Scores({"fid": 1.0, "test/mode_kl": 2.0}, {"inception": "features", "modes": "ten"})
    tracking.State("sqlite:///none.db", "gan", "key").save(tmp_path)
    monkeypatch.setattr(tracking.Tracker, "send", away)
    track(tmp_path, scores, 5, "test")
    event, *tags = map(json.loads, (tmp_path / "journal.jsonl").read_text().splitlines())
    assert (event["kind"], event["step"]) == ("metrics", 5)
    assert event["values"] == {"evaluate/fid": 1.0, "test/mode_kl": 2.0}
    assert [(tag["kind"], tag["name"], tag["value"]) for tag in tags] == [
        ("tag", "protocol.evaluate.train.inception", "features"),
        ("tag", "protocol.evaluate.test.modes", "ten"),
    ]
    assert (
        "MLflow does not take the figures (ConnectionError: no server)" in capsys.readouterr().err
    )


def test_the_journal_of_a_run_that_plays_is_left_alone_though_mlflow_has_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = planned(f"gan --name mine --storage {tmp_path}")
    with RunFolder(config) as folder:
        folder.open(resume=False)
        folder.keep()
        tracking.State("sqlite:///none.db", "gan", "key").save(config.folder)
        track(config.folder, Scores({"fid": 1.0}, {}), 5, "test")
    assert "the run is being trained" in capsys.readouterr().err
    assert not (config.folder / "journal.jsonl").exists()


def test_a_run_without_mlflow_has_its_figures_in_what_compare_reads_unless_it_is_being_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = planned(f"gan --name mine --storage {tmp_path}")
    scores = Scores({"fid": 1.0, "test/mode_kl": 2.0}, {"inception": "features", "modes": "ten"})
    with RunFolder(config) as folder:
        folder.open(resume=False)
        folder.keep()
        track(config.folder, scores, 5, "test")
    assert capsys.readouterr().err == (
        "warning: the run is being trained: its figures are in evaluation-test.json alone\n"
    )
    track(config.folder, scores, 5, "test")
    entry = read_folder(config.folder)
    assert entry.figures == {"evaluate/fid": 1.0, "test/mode_kl": 2.0}
    assert entry.protocol_of("test/mode_kl") == "ten"
    assert capsys.readouterr().err == ""
    assert tracking.State.load(config.folder) is None
    (tmp_path / "released").mkdir()
    track(tmp_path / "released", scores, 5, "test")  # a generator without its run
    assert list((tmp_path / "released").iterdir()) == []


def test_parzen_figures_beside_those_of_a_split_keep_their_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(planned("gan --name mine"), tmp_path / "config.yaml")
    tracking.State("sqlite:///none.db", "gan", "key").save(tmp_path)
    monkeypatch.setattr(tracking.Tracker, "send", lambda _: 0)
    figures = {"test/fid": 1.0, "parzen_log_likelihood": 2.0, "parzen_training_sigma": 0.1}
    how = {"inception": "on test", "parzen": "windows", "parzen_training": "memory"}
    track(tmp_path, Scores(figures, how), 5, "test")
    entry = read_folder(tmp_path)
    assert {name: entry.protocol_of(name) for name in entry.figures} == {
        "test/fid": "on test",
        "evaluate/parzen_log_likelihood": "windows",
        "evaluate/parzen_training_sigma": "memory",
    }


def test_figures_that_the_run_has_by_another_protocol_are_replaced_and_by_the_same_one_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_config(planned("gan --name mine"), tmp_path / "config.yaml")
    tracking.State("sqlite:///none.db", "gan", "key").save(tmp_path)
    monkeypatch.setattr(tracking.Tracker, "send", lambda _: 0)
    first = Scores({"fid": 1.0}, {"inception": "of 100 samples"})
    again = Scores({"fid": 1.5, "mode_kl": 2.0}, {"inception": "of 200 samples", "modes": "ten"})
    for scores, step in ((first, 5), (first, 4), (first, 5), (again, 5), (again, 5)):
        track(tmp_path, scores, step, "train")
    assert capsys.readouterr().err == ""
    events = list(map(json.loads, (tmp_path / "journal.jsonl").read_text().splitlines()))
    assert [(e["step"], e["values"]) for e in events if e["kind"] == "metrics"] == [
        (5, {"evaluate/fid": 1.0}), (4, {"evaluate/fid": 1.0}),
        (5, {"evaluate/fid": 1.5, "evaluate/mode_kl": 2.0}),
    ]  # fmt: skip
    entry = read_folder(tmp_path)
    assert entry.curves["evaluate/fid"] == [(4, 1.0), (5, 1.5)]
    how = [entry.protocol_at("evaluate/fid", step) for step in (4, 5)]
    assert how == ["of 100 samples", "of 200 samples"]


def test_the_table_of_an_evaluation_is_printed_last(
    storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads it may have gone: nothing is lost by that."""

    def closed(*_: object, **__: object) -> None:
        raise BrokenPipeError

    run = tmp_path / "points"
    shutil.copytree(storage / "points", run)
    monkeypatch.setattr("builtins.print", closed)
    with pytest.raises(BrokenPipeError):
        evaluate_command([str(run), *["--samples", "50", "--split", "test", "--device", "cpu"]])
    assert "test/mode_kl" in read_folder(run).figures
    assert scores_file(run, "test").exists()


def test_every_figure_is_shown_with_its_own_protocol() -> None:
    protocol = {"classifier": "a", "modes": "b", "inception": "c", "parzen": "d"}
    expected = {
        "fid": "inception", "test/fid_classifier": "classifier", "mode_kl": "modes",
        "class_accuracy": "modes", "modes_covered": "modes", "parzen_sigma": "parzen",
        "min_class_recall_classifier": "classifier", "high_quality_share": "modes",
    }  # fmt: skip
    assert {name: family(name, protocol) for name in expected} == expected
    own = {
        "fid": "inception",
        "test/l1": "cyclegan",
        "psnr": "cyclegan",
        "copied_share": "inception",
    }
    assert {name: family(name, {**protocol, "cyclegan": "e"}) for name in own} == own
    assert family("test/ssim", {"classifier": "a", "pix2pix": "f"}) == "pix2pix"
    table = as_table(Scores({"fid": 1.5, "mode_kl": float("nan")}, protocol)).splitlines()
    assert table[1].split() == ["fid", "1.5", "[3]"]
    assert table[2].split() == ["mode_kl", "nan", "[2]"]


def test_the_run_of_a_checkpoint_or_generator_is_found(storage: Path, tmp_path: Path) -> None:
    run = storage / "classes"
    for inside in (run, run / "generator" / "last", next((run / "checkpoints").iterdir())):
        assert run_folder(inside) == run
    assert run_folder(tmp_path) is None


def test_warnings_are_told_as_such_and_what_is_merely_told_is_not() -> None:
    lines = command._Lines("%(message)s")
    record = logging.makeLogRecord({"msg": "read %d of 5", "args": (2,), "levelno": logging.INFO})
    assert lines.format(record) == "read 2 of 5"
    record.levelno = logging.WARNING
    assert lines.format(record) == "warning: read 2 of 5"


@pytest.mark.parametrize(
    ("name", "level", "shown"),
    [
        ("gan_core.data.pictures", logging.WARNING, [True, False]),
        ("gan_core.data.pictures", logging.INFO, [True, True]),
        ("gan_core.metrics.cache", logging.WARNING, [True, True]),
    ],
)
def test_a_warning_about_data_is_shown_once(name: str, level: int, shown: list[bool]) -> None:
    once = command._Once()
    facts = {"name": name, "msg": "skipped %d pictures", "args": (2,), "levelno": level}
    assert [once.filter(logging.makeLogRecord(facts)) for _ in range(2)] == shown
