"""StackGAN on pictures with captions: do generated pictures match their held-out captions?

    python -m benchmarks.stackgan RUN [--split test] [--picture docs/text-stackgan.png]

``RUN`` is the folder of a run of ``train stackgan --data captions`` (by the command in
``docs/results.md``).
For each stage that the run has trained, the held-out captions' pictures are judged by the matcher
that the pipeline trains on the training split (gan_core/metrics/retrieval.py): how often a picture
prefers its own text to another's, beside the same for the real held-out pictures, and beside what
wrong pictures for the texts would get. Stage-I is judged with the networks that Stage-II stands on.
Figures are means over ``--draws`` of the noise, each a picture for every held-out one;
``--truncation`` draws no number larger than that. The figure has real and generated pictures of
held-out captions, one above the other.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import textwrap
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gan_core.config import RunConfig, make_config
from gan_core.data.captions import Captions
from gan_core.data.examples import Examples, to_pixels
from gan_core.data.loading import create_source
from gan_core.engine.sampling import Sampler
from gan_core.engine.world import World
from gan_core.exit_codes import exit_code
from gan_core.judging import make_evaluator
from gan_core.pictures import save_png
from gan_core.release import ReleasedGenerator, load_generator
from gan_core.splits import load_split

_SHOWN, _COLUMNS, _LINE, _LETTER = 16, 8, 12, 6  # pictures, in a row; pixels of a line, a letter
_GAP = 4


def sampler_of(generator: ReleasedGenerator, stage: str, texts: Tensor, draw: int = 0) -> Sampler:
    """Samples of ``stage`` for ``texts`` (N, K, d) by the released networks, one draw's."""
    seed = generator.info["config"]["seed"] + draw
    return Sampler(generator.variant, stage, seed, generator.device, {"text": texts})


def judged(
    generator: ReleasedGenerator,
    config: RunConfig,
    held_out: Examples,
    world: World,
    *,
    draws: int,
    truncation: float | None,
) -> dict[str, dict[str, float]]:
    """The figures of each stage, and those of its pictures for other pictures' texts."""
    evaluator = make_evaluator(
        config, load_split(config, "train"), world, reference=held_out, conditional=False,
        resizer="to native", say=lambda text, level: print(text),
    )  # fmt: skip
    spec, texts = held_out.spec, held_out.tensors["text"].to(world.device)
    asked = texts[: evaluator.samples]
    others = asked.roll(len(asked) // 2, 0)  # neighbours by name are often alike
    found: dict[str, dict[str, float]] = {}
    for stage in generator.variant.stages():
        if set(generator.variant.sampling_networks(stage.name)) - set(_networks(generator)):
            continue
        each: dict[str, list[dict[str, float]]] = {
            stage.name: [],
            f"{stage.name}, of other texts": [],
        }
        for draw in range(draws):
            sampler = sampler_of(generator, stage.name, texts, draw)

            def generate(index: Tensor, sampler: Sampler = sampler, stage: Any = stage) -> Tensor:
                made = sampler(index, noise=sampler.noise(index, truncation))["image"]
                return stage.view.restore(made, spec.target_shape)

            for name, told in zip(each, (asked, others), strict=True):
                each[name].append(evaluator(generate, texts=told).figures)
        found |= {name: _mean(figures) for name, figures in each.items()}
    for name, line in evaluator._protocol().items():
        print(f"{name}: {line}")
    return found


def _mean(draws: list[dict[str, float]]) -> dict[str, float]:
    """The figures' means over draws."""
    return {name: statistics.fmean(d[name] for d in draws) for name in draws[0]}


def _networks(generator: ReleasedGenerator) -> tuple[str, ...]:
    return generator.variant.sampling_networks(generator.info["stage"])


def draw_captions(
    pictures: list[tuple[Tensor, Tensor]], captions: list[str], columns: int = _COLUMNS
) -> Tensor:
    """A picture of (real, generated) pairs, uint8 (3, S, S) each, with a caption below each."""
    from PIL import Image, ImageDraw

    side = pictures[0][0].shape[-1]
    lines = [textwrap.wrap(text, side // _LETTER)[:3] for text in captions]
    height = 2 * side + 2 * _GAP + 3 * _LINE + 2 * _GAP
    rows = -(-len(pictures) // columns)
    width = columns * (side + _GAP) + _GAP
    sheet = Image.new("RGB", (width, rows * height), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (pair, told) in enumerate(zip(pictures, lines, strict=True)):
        left, top = _GAP + place % columns * (side + _GAP), place // columns * height + _GAP
        for which, pixels in enumerate(pair):
            tile = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
            sheet.paste(tile, (left, top + which * (side + _GAP)))
        for row, line in enumerate(told):
            pen.text((left, top + 2 * side + 2 * _GAP + row * _LINE), line, fill="black")
    data = torch.frombuffer(bytearray(sheet.tobytes()), dtype=torch.uint8)
    return data.reshape(sheet.height, sheet.width, 3).permute(2, 0, 1).contiguous()


def show(
    generator: ReleasedGenerator,
    config: RunConfig,
    split: str,
    path: Path,
    truncation: float | None,
) -> None:
    """Real pictures of the split, and below each the one generated for its captions."""
    root = config.data_root
    source = create_source(config.data, root, **config.data_options)
    assert isinstance(source, Captions)
    examples, words = source.load(split), source.texts(split)  # type: ignore[arg-type]
    chosen = torch.linspace(0, len(examples) - 1, _SHOWN).round().long()
    texts = examples.tensors["text"][chosen].to(generator.device)
    real = generator.stage.view.prepare(examples.select(chosen)).tensors["image"]
    index = torch.arange(_SHOWN)
    noise = generator.noise(index, truncation=truncation)
    made = to_pixels(generator.generate(index, noise=noise, conditions={"text": texts})).cpu()
    captions = [words[i][0] for i in chosen.tolist()]
    save_png(draw_captions(list(zip(real, made, strict=True)), captions), path)
    print(f"wrote {path}")


def main() -> None:
    """Print the table, draw the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of the run, or of a checkpoint")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--extractor", default="mobilenet_v2")
    parser.add_argument("--extractor-weights", help="the extractor's file")
    parser.add_argument(
        "--draws", type=int, default=5, help="of the noise, over which figures are means"
    )
    parser.add_argument("--truncation", type=float, help="the largest number that noise may have")
    parser.add_argument("--picture", type=Path, help="PNG file to write")
    arguments = parser.parse_args()
    world = World.current(None)
    generator = load_generator(arguments.run, world.device)
    own = dict(generator.info["config"])
    own |= {"extractor": arguments.extractor, "extractor_weights": arguments.extractor_weights}
    config = make_config(own)
    held_out = load_split(config, arguments.split)
    found = judged(
        generator,
        config,
        held_out,
        world,
        draws=arguments.draws,
        truncation=arguments.truncation,
    )
    suffix = "" if arguments.extractor == "inception" else f"_{arguments.extractor}"
    columns = [
        f"{c}{suffix}" for c in ("retrieval", "retrieval_real", "retrieval_excess", "fid", "kid")
    ]
    print("| step", generator.info["step"], "|", " | ".join(columns), "|")
    print("|---" * (len(columns) + 1) + "|")
    for name, figures in found.items():
        row = " | ".join(f"{figures[c]:.4g}" for c in columns if c in figures)
        print(f"| {name} | {row} |")
    print(json.dumps(found))
    if arguments.picture:
        show(generator, config, arguments.split, arguments.picture, arguments.truncation)


if __name__ == "__main__":
    sys.exit(exit_code(main))
