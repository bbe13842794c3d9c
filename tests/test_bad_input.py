"""Wrong input: exit code 2 and one line on stderr that names the thing, before any training."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pipelines.train
from pipelines.__main__ import main
from pipelines.launch import plan

HERE = "--workers 0 --extractor none"


@pytest.fixture(autouse=True)
def _nothing_is_trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The game is never played and Ray never started, and nothing is left in the repository."""

    def too_late(*_: object, **__: object) -> None:
        raise AssertionError("this mistake should have been found before training")

    monkeypatch.setattr(pipelines.train, "play", too_late)
    monkeypatch.setattr(pipelines.train, "_train_on_ray", too_late)
    monkeypatch.chdir(tmp_path)


def refusal(capsys: pytest.CaptureFixture[str], line: str) -> str:
    """What the command ``line`` is refused with: checked to be one line, without the prefix."""
    capsys.readouterr()
    assert main(line.split()) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert output.err.endswith("\n")
    assert output.err.count("\n") == 1
    return output.err.removeprefix("error: ").rstrip("\n")


CONFIGURATION = {
    "a wrong verb": ("trian gan", "'trian': did you mean 'train'?"),
    "an option for a verb": ("--workers 2 train", "--workers before the verb: begin with one of"),
    "no variant": ("train --data digits", "train needs a variant"),
    "a wrong variant": ("train dcgann", "variant 'dcgann': did you mean 'dcgan'?"),
    "a wrong source": ("train gan --data digit", "data source 'digit': did you mean 'digits'?"),
    "a wrong option": ("train gan --batchsize 3", "'--batchsize': did you mean '--batch-size'?"),
    "an abbreviated option": ("train gan --batch 3", "'--batch': did you mean '--batch-size'?"),
    "what others call it": (
        "train dcgan --learning-rate 1",
        "unknown option '--learning-rate': here it is --lr-g and --lr-d",
    ),
    "another source's option": (
        "train gan --channels 3",
        "an option of --data captions, folder, hires, pairs, unpaired: leave it out",
    ),
    "another variant's option": ("train dcgan --maxout-units 2", "an option of cgan, gan"),
    "an option without its value": ("train gan --k", "--k needs a value"),
    "an option before another": ("train gan --lr-d --k 2", "--lr-d needs a value"),
    "a second variant": ("train gan dcgan", "unexpected argument 'dcgan'"),
    "a negative rate": ("train gan --lr-d -1", "--lr-d must be greater than 0, not -1"),
    "a rate like -1e-3": ("train gan --lr-g -1e-3", "--lr-g must be greater than 0, not -0.001"),
    "a rate that is no number": ("train gan --lr-d fast", "--lr-d must be a number, not 'fast'"),
    "an infinite rate": ("train gan --lr-d inf", "--lr-d must be finite, not 'inf'"),
    "k below 1": ("train gan --k 0", "--k must be at least 1, not 0"),
    "a kernel beyond the reflection": (
        "train cyclegan --data unpaired --image-size 32 --kernel 65",
        "--kernel 65 looks beyond the reflection of pictures of 32 pixels",
    ),
    "an enlargement without end": (
        "train pix2pix --data pairs --image-size 32 --enlarged 129",
        "--enlarged 129 leaves little of a picture in a crop of 32 pixels: give at most 128",
    ),
    "pixels beside no features": (
        "train srgan --content pixels --pixel-weight 3",
        "--pixel-weight is of the pixels' error beside that of features",
    ),
    "texts without end": (
        "train stackgan --contrast 1 --contrast-texts 256",
        "--contrast-texts must be at most 255",
    ),
    "a k without end": ("train gan --k 10000000", "--k must be at most 100000, not 10000000"),
    "half a step": ("train gan --steps 0.5", "--steps must be a whole number, not '0.5'"),
    "a wrong prior": ("train gan --prior gausian", "--prior 'gausian': did you mean 'gaussian'?"),
    "a wrong device": ("train gan --device gpu", "--device 'gpu'"),
    "a wrong extractor": ("train gan --extractor vgg", "--extractor 'vgg'"),
    "fewer workers than none": ("train gan --workers -2", "--workers must be at least 0"),
    "a batch smaller than the workers": (
        "train gan --batch-size 2 --workers 4", "--batch-size 2 cannot be divided by --workers 4",
    ),
    "a batch that the workers cannot share": (
        "train gan --batch-size 65 --workers 2", "--batch-size 65 cannot be divided by --workers 2",
    ),
    "packs that a worker cannot fill": (
        "train gan --batch-size 12 --packing 4 --workers 2",
        "a worker's batch of 6 is no multiple of --packing 4",
    ),
    "groups that a worker cannot fill": (
        "train gan --batch-size 12 --minibatch-stddev 4 --workers 2",
        "a worker's batch of 6 is no multiple of --minibatch-stddev 4",
    ),
    "a name with folders": ("train gan --name a/b", "--name must be a plain name"),
    "a missing configuration file": ("train gan --config no.yaml", "no.yaml does not exist"),
    "a plugin that is not there": ("train gan --plugin no_such.module", "--plugin no_such.module"),
    "a run that is not there": ("train --resume lost", "no run 'lost'"),
    "a wrong source option": ("train gan --on-bad-file ignore", "--on-bad-file 'ignore'"),
    "weights that are not there": ("train gan --extractor-weights w.pth", "w.pth does not exist"),
    "a source without its folder": ("train gan --data mnist", "mnist needs --data-root"),
    "a missing data folder": ("train gan --data mnist --data-root gone", "gone"),
    "a missing run to sample": ("sample lost", "no run 'lost'"),
    "no run to sample": ("sample", "RUN_OR_CHECKPOINT is missing"),
    "no samples": ("sample lost --n 0", "--n must be at least 1, not 0"),
    "more samples than memory": ("sample lost --n 1000000000", "--n must be at most 1000000"),
    "a picture that is none": ("sample lost --out grid.txt", "must end in .png"),
    "a missing run to evaluate": ("evaluate lost", "no run 'lost'"),
    "too few samples": ("evaluate lost --samples 1", "--samples must be at least 2"),
    "a wrong split": ("evaluate lost --split tset", "--split 'tset': did you mean 'test'?"),
    "a storage that is not there": ("sync --storage gone", "gone"),
    "another's home as the data's": (
        "train gan --data folder --data-root ~nobody-at-all/x",
        "--data-root ~nobody-at-all/x: there is no such user",
    ),
    "another's home as storage": (
        "train gan --storage ~nobody-at-all/x", "--storage ~nobody-at-all/x: there is no such user",
    ),
    "another's home to sample into": (
        "sample lost --out ~nobody-at-all/x.png", "--out ~nobody-at-all/x.png: there is no such",
    ),
    "another's home to sample from": ("sample ~nobody-at-all/x", "there is no such user"),
    "an empty data root": ("train gan --data folder --data-root=", "--data-root is empty"),
    "an empty storage": ("train gan --storage=", "--storage is empty"),
    "a data root longer than a name may be": (
        f"train gan --data folder --data-root {'x' * 300}", "give an existing one with --data-root",
    ),
    "a name longer than a name may be": (f"train gan --name {'x' * 201}", "at most 200 bytes"),
    "a run longer than a name may be": (f"sample {'x' * 300}", "no run 'xxx"),
    "an option of list": ("list --jsn", "'--jsn': did you mean '--json'?"),
}  # fmt: skip


@pytest.mark.parametrize("what", CONFIGURATION)
def test_a_wrong_configuration_is_refused_in_one_line(
    what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line, expected = CONFIGURATION[what]
    assert expected in refusal(capsys, line)


FILES = {
    "no YAML": ("k: [1", "cannot be read as YAML"),
    "tabs": ("variant: gan\n\tk: 1", "character '\\t' that cannot start any token in line 2"),
    "no mapping": ("- gan", "must hold names and values"),
    "an unknown option": ("variant: gan\nlr_dd: 1", "unknown option 'lr_dd': did you mean 'lr_d'?"),
    "a wrong type": ("variant: gan\nsteps: many", "--steps must be a whole number, not 'many'"),
    "options that are none": ("variant: gan\noptions: 3", "'options'"),
    "no variant": ("data: digits", "train needs a variant"),
}


@pytest.mark.parametrize("what", FILES)
def test_a_wrong_configuration_file_is_refused_in_one_line(
    what: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    content, expected = FILES[what]
    (tmp_path / "run.yaml").write_text(content)
    assert expected in refusal(capsys, "train --config run.yaml")


def test_an_unwritable_storage_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert "cannot write to --storage file/runs" in refusal(capsys, "train gan --storage file/runs")


@pytest.mark.parametrize("data", ["folder", "hires", "pairs"])
def test_runs_among_the_pictures_that_they_would_become_a_class_of_are_refused(
    data: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        _pictures(tmp_path / name)
    line = f"train gan --data {data} --data-root . --batch-size 8 {HERE}"
    assert refusal(capsys, line).startswith(f"--storage {tmp_path / 'runs'} lies in {tmp_path}")
    assert not (tmp_path / "runs").exists()
    for hidden in (".runs", "a/.runs"):  # which are not looked into
        plan(f"{line} --storage {hidden}".split()[1:])
    if data == "pairs":
        plan(f"{line} --input-folder a --target-folder b".split()[1:])


def test_a_run_of_that_name_is_not_overwritten(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    said = refusal(capsys, "train gan --name mine")
    assert "run 'mine' exists already" in said
    assert "--resume mine" in said


def _idx(path: Path, array: np.ndarray, cut: int = 0) -> None:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(content[: len(content) - cut])


def _mnist(root: Path, count: int = 40, cut: int = 0, label: int = 9) -> None:
    for part in ("train", "t10k"):
        _idx(root / f"{part}-images-idx3-ubyte", np.zeros((count, 28, 28)), cut)
        _idx(root / f"{part}-labels-idx1-ubyte", np.minimum(np.arange(count) % 10, 9))
    labels = np.arange(count) % 10
    labels[3] = label
    _idx(root / "train-labels-idx1-ubyte", labels)


def _pictures(root: Path, count: int = 40) -> None:
    for number in range(count):
        pixels = np.full((8, 8), number, dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")


def _no_picture(root: Path) -> None:
    _pictures(root)
    (root / "broken.png").write_text("this is no picture")


DATA: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "an empty folder": (lambda root: None, "gan --data folder", "no pictures (png"),
    "a file that is no picture": (_no_picture, "gan --data folder", "broken.png"),
    "a size without networks, before a file is read": (
        _no_picture, "dcgan --data folder --image-size 24", "must be one of 16, 32, 64, not 24",
    ),
    "fewer images than a batch": (_pictures, "gan --data folder --batch-size 99", "batch of 99"),
    "a variant that needs labels": (_pictures, "cgan --data folder --batch-size 8", "with labels"),
    "a truncated IDX file": (
        lambda root: _mnist(root, cut=100), "gan --data mnist", "idx3-ubyte is truncated",
    ),
    "a label out of range": (
        lambda root: _mnist(root, label=12), "gan --data mnist", "label 12 at position 3",
    ),
    "missing IDX files": (lambda root: None, "gan --data mnist", "no train-images-idx3-ubyte"),
}  # fmt: skip


@pytest.mark.parametrize("what", DATA)
def test_wrong_data_are_refused_in_one_line(
    what: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    make, line, expected = DATA[what]
    root = tmp_path / "data"
    root.mkdir()
    make(root)
    assert expected in refusal(capsys, f"train {line} --data-root {root} {HERE}")
    assert not any((tmp_path / "runs").glob("*/config.yaml"))


def _run(folder: Path, **changes: object) -> Path:
    """The folder of a run that has a configuration and nothing else."""
    from gan_core.config import make_config, write_config

    config = make_config({"variant": "gan", "data": "ring", "storage": str(folder.parent),
                          "name": folder.name, "workers": 0, **changes})  # fmt: skip
    folder.mkdir(parents=True)
    write_config(config, folder / "config.yaml")
    return folder


def test_a_run_is_not_resumed_as_another(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    _run(tmp_path / "runs" / "mine", hidden=8)
    assert "its variant is gan, not dcgan" in refusal(capsys, "train dcgan --resume mine")
    assert "its data is ring, not grid" in refusal(capsys, "train --resume mine --data grid")
    assert "hidden was 8 and is now 16" in refusal(capsys, "train --resume mine --hidden 16")
    assert "--name cannot rename" in refusal(capsys, "train --resume mine --name other")
    assert "did you mean 'mine'?" in refusal(capsys, "train --resume mime")


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda folder: (folder / "state.pt").write_bytes(b"12"), "state.pt is not whole"),
        (lambda folder: (folder / "rank_0.pt").unlink(), "is incomplete"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "no checkpoint of this"),
    ],
    ids=["truncated", "incomplete", "foreign"],
)
def test_a_run_whose_only_checkpoint_is_broken_is_not_resumed(
    damage: Callable[[Path], object],
    expected: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    from gan_core.engine.checkpoint import write_rank, write_shared

    run = _run(tmp_path / "runs" / "mine")
    folder = run / "checkpoints" / "step_00000001"
    folder.mkdir(parents=True)
    write_rank(folder, 0, {})
    write_shared(folder, {}, {"step": 1, "world_size": 1, "config": {}, "data": ""})
    damage(folder)
    assert expected in refusal(capsys, "train --resume mine")


def test_a_broken_or_foreign_generator_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = _run(tmp_path / "runs" / "mine") / "generator" / "last"
    assert "no generator at" in refusal(capsys, "sample mine")
    folder.mkdir(parents=True)
    (folder / "generator.safetensors").write_bytes(b"cut off")
    (folder / "generator.json").write_text(json.dumps({"format": 1}))
    assert "damaged" in refusal(capsys, "sample mine")
    assert "damaged" in refusal(capsys, f"evaluate {folder}")


def test_the_file_of_another_systems_run_is_named_as_that(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "other.yaml").write_text("variant: gan\noptions: {lr_d: null}\n")
    said = refusal(capsys, f"train dcgan --config other.yaml {HERE}")
    assert said == "--lr-d needs a value (the file of --config is of a run of gan)"
    (tmp_path / "other.yaml").write_text("variant: gan\noptions: {lr_d: -1}\n")
    assert refusal(capsys, f"train gan --config other.yaml {HERE}").endswith("not -1.0")
