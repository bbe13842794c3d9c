r"""SRGAN on photographs: PSNR and SSIM as published on whole pictures, and what they leave out.

    python -m benchmarks.super_resolution --train PHOTOGRAPHS --set5 FOLDER --set14 FOLDER \
        --extractor-weights mobilenet_v2-b0353104.pth

trains SRResNet and goes on to SRGAN, then scores bicubic enlargement, both generators and the
truth: PSNR and SSIM on Y with 4 pixels shaved, on the pictures of the two test sets as they are;
and the kernel distance of MobileNetV2 features of 128 px patches, of Set14 and of the photographs
that training has not seen. Bicubic on Set5 must give the published 28.42 dB, or nothing here is
comparable with anything. A run that was interrupted goes on when the command is given again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.kept import check_run
from benchmarks.mnist import Keeper
from benchmarks.settings import read_settings
from benchmarks.stopping import stoppable
from gan_core.config import RunConfig, make_config
from gan_core.data.examples import to_unit_range
from gan_core.data.listing import list_pictures
from gan_core.data.pictures import EXTENSIONS, PictureFormat
from gan_core.engine.checkpoint import find_checkpoint
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.exit_codes import exit_code
from gan_core.layers import bicubic
from gan_core.metrics.distances import RealKernel
from gan_core.metrics.extractors import create_extractor
from gan_core.metrics.sampling import quantised
from gan_core.metrics.super_resolution import PROTOCOL, psnr, ssim
from gan_core.pictures import image_grid, save_png
from gan_core.release import load_generator
from gan_core.run import Run

SCALE, PATCH = 4, 128
PUBLISHED_BICUBIC = 28.42  # dB on Set5; Ledig et al. 2017, table 2, and many before
Enlarge = Callable[[Tensor], Tensor]

RECIPE: dict[str, Any] = {
    # A network that a CPU trains in minutes; bicubic skip and one enlargement save the most.
    "width": 32,
    "blocks": 8,
    "kernel_end": 3,
    "upsampling": "once",
    "norm_g": "none",
    "skip": "bicubic",
    "width_d": 16,
    "hidden_d": 256,
    "pretrain_steps": 900,
    "lr_pretrain": 1e-3,
    "decay_pretrain": "cosine",
    "ema": 0.999,
    # Features of MobileNetV2 differ by about 0.5 where VGG19's differ by 0.01: the paper's weight
    # of 1e-3 would be none. A rate for hundreds of steps, not hundreds of thousands.
    "steps": 200,
    "adversarial_weight": 0.05,
    "pixel_weight": 5.0,
    "lr_g": 2e-4,
    "lr_d": 2e-4,
}


def config_of(arguments: argparse.Namespace) -> RunConfig:
    """The configuration of the run."""
    extra = read_settings(arguments.set)
    weights = str(arguments.extractor_weights)
    options = {**RECIPE, "content": "mobilenet_v2", "content_weights": weights}
    return make_config(
        {
            "variant": "srgan",
            "data": "hires",
            "data_root": str(arguments.train),
            "workers": 0,
            "device": arguments.device,
            "log_every": 100,
            "evaluate_every": 0,
            "checkpoint_every": 100,
            "extractor": "none",
            "storage": str(arguments.out),
            "name": arguments.name,
            **options,
            **extra,
        }
    )


def check_steps(config: RunConfig) -> None:
    """``UserError`` if the generator with which the game begins would not be kept."""
    pretrained, every = config.options["pretrain_steps"], config.checkpoint_every
    if not every or pretrained % every:
        raise UserError(
            f"SRResNet is judged as it is after pretrain_steps ({pretrained}), which must be a "
            f"multiple of checkpoint_every ({every}): set another of the two"
        )


def train(config: RunConfig, minutes: float) -> bool:
    """Train for as long as is allowed; whether the run has come to its end."""
    world = World.current(None if config.device == "auto" else config.device)
    deadline = time.time() + 60 * minutes
    observer = Keeper(config.folder, world, deadline, every=config.checkpoint_every)
    with stoppable(config):
        summary = Run(config, world, observer).play(find_checkpoint(config.folder))
    return bool(summary["status"] == "finished")


def pictures_in(folder: Path) -> list[Tensor]:
    """Every picture (1, 3, H, W) in [-1, 1], cut at the right and below to multiples of 4."""
    paths = sorted(p for p in folder.glob("*") if p.suffix.lower() in EXTENSIONS)
    if not paths:
        raise UserError(f"no pictures in {folder}: give the folder of the set's whole pictures")
    return [read(str(path)) for path in paths]


def read(path: str) -> Tensor:
    """One such picture; a gray one has three equal channels."""
    pixels = torch.from_numpy(PictureFormat(3).read(path).copy())
    rows, columns = (side // SCALE * SCALE for side in pixels.shape[1:])
    return to_unit_range(pixels[None, :, :rows, :columns])


def enlarger(folder: Path, device: torch.device) -> Enlarge:
    """A function from small pictures to large ones, by the generator kept in ``folder``."""
    generator = load_generator(folder, device)

    def enlarge(low: Tensor) -> Tensor:
        return generator.generate(torch.zeros(1, dtype=torch.int64), conditions={"low": low}).cpu()

    return enlarge


def scores(pictures: list[Tensor], enlarge: Enlarge) -> tuple[float, float]:
    """Mean PSNR and SSIM over whole pictures of any sizes."""
    made = [quantised(enlarge(bicubic.reduced(picture, SCALE))) for picture in pictures]
    measured = [
        torch.cat([measure(m, p) for m, p in zip(made, pictures, strict=True)]).mean().item()
        for measure in (psnr, ssim)
    ]
    return measured[0], measured[1]


def bicubic_enlarged(low: Tensor) -> Tensor:
    """What every generator must do better than."""
    return bicubic.enlarged(low, SCALE)


def check_protocol(set5: Path) -> None:
    """``UserError`` if bicubic enlargement does not score what is published."""
    found, _ = scores(pictures_in(set5), bicubic_enlarged)
    if abs(found - PUBLISHED_BICUBIC) > 0.02:
        raise UserError(
            f"bicubic on the pictures in {set5} gives {found:.3f} dB, not {PUBLISHED_BICUBIC}: "
            "give Set5's own, whole"
        )


def patches(pictures: list[Tensor]) -> Tensor:
    """All squares (N, 3, 128, 128) of the pictures that do not overlap."""
    cut = [
        p.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
        for p in pictures
    ]
    return torch.cat(cut)


def unseen(arguments: argparse.Namespace) -> list[Tensor]:
    """The photographs of the validation and test splits, and Set14."""
    splits = list_pictures(arguments.train).splits
    held_out = [read(p.path) for name in ("validation", "test") for p in splits[name]]
    return held_out + pictures_in(arguments.set14)


def kernel_distances(
    arguments: argparse.Namespace, rows: dict[str, Enlarge]
) -> tuple[dict[str, float], int]:
    """The kernel distance of every row to the truth, and the number of patches of either."""
    world = World.current(None if arguments.device == "auto" else arguments.device)
    extractor = create_extractor("mobilenet_v2", world=world, weights=arguments.extractor_weights)
    truth = unseen(arguments)
    real, _ = extractor.features(patches(truth))
    kernel, found = RealKernel(real), {}
    for name, enlarge in rows.items():
        made = [quantised(enlarge(bicubic.reduced(picture, SCALE))) for picture in truth]
        found[name] = kernel.distance(extractor.features(patches(made))[0])
    return found, len(real)


def comparison(
    rows: dict[str, Enlarge], truth: Tensor, place: tuple[int, int], side: int
) -> Tensor:
    """The square of ``side`` pixels at ``place`` by every row and in truth, beside each other."""
    low = bicubic.reduced(truth, SCALE)
    columns = [*(enlarge(low) for enlarge in rows.values()), truth]
    top, left = place
    return image_grid(
        torch.cat([c[:, :, top : top + side, left : left + side] for c in columns]),
        columns=len(columns),
        enlarge=2,
    )


def table(arguments: argparse.Namespace, rows: dict[str, Enlarge]) -> str:
    """A Markdown table of all figures."""
    sets = {"Set5": arguments.set5, "Set14": arguments.set14}
    measured = {
        name: {of: scores(pictures_in(folder), enlarge) for of, folder in sets.items()}
        for name, enlarge in rows.items()
    }
    kid, count = kernel_distances(arguments, rows)
    lines = ["| | Set5 PSNR / SSIM | Set14 PSNR / SSIM | kid_mobilenet_v2 |", "|---" * 4 + "|"]
    for name, found in measured.items():
        cells = [f"{db:.2f} / {similarity:.4f}" for db, similarity in found.values()]
        lines.append(f"| {name} | {' | '.join(cells)} | {kid[name]:.5f} |")
    told = f"\n{PROTOCOL}; kid: {count} patches of {PATCH} px of unseen photographs and Set14"
    return "\n".join([*lines, told])


def main() -> None:
    """Train, score, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--set5", type=Path, required=True)
    parser.add_argument("--set14", type=Path, required=True)
    parser.add_argument(
        "--extractor-weights", type=Path, required=True, help="torchvision's MobileNetV2"
    )
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--name", default="super-resolution", help="of the run")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop training after so many")
    parser.add_argument("--set", nargs="*", help="other options, as name=value")
    parser.add_argument("--crop", nargs=4, metavar=("PICTURE", "TOP", "LEFT", "SIDE"), type=int,
                        default=(13, 90, 200, 96), help="of Set14, for the picture")  # fmt: skip
    arguments = parser.parse_args()
    config = config_of(arguments)
    check_steps(config)
    check_run(config, "give another --out (or --name)")
    check_protocol(arguments.set5)  # before what takes long
    pictures_in(arguments.set14)
    if not train(config, arguments.minutes):
        sys.exit("not finished: give the command again to go on")
    device = torch.device("cpu" if arguments.device == "auto" else arguments.device)
    kept = config.folder / "kept"
    pretrained = config.options["pretrain_steps"]
    last = pretrained + config.options["steps"]
    rows: dict[str, Enlarge] = {"bicubic": bicubic_enlarged}
    rows["SRResNet"] = enlarger(kept / f"step_{pretrained:08d}", device)
    rows["SRGAN"] = enlarger(kept / f"step_{last:08d}", device)
    text = table(arguments, rows)
    print(text)
    (config.folder / "table.md").write_text(text + "\n")
    number, top, left, side = arguments.crop
    truth = pictures_in(arguments.set14)[number]
    save_png(comparison(rows, truth, (top, left), side), config.folder / "comparison.png")


if __name__ == "__main__":
    sys.exit(exit_code(main))
