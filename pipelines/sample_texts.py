"""``sample --texts``: pictures of one's own words, from a generator trained on captions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gan_core.errors import UserError
from pipelines.sample_options import refuse_others

if TYPE_CHECKING:
    from torch import Tensor

    from gan_core.release import ReleasedGenerator
    from pipelines.sample import SampleOptions

_COLUMNS = 8
_BATCH = 64


def write_texts(generator: ReleasedGenerator, options: SampleOptions, out: Path) -> Path:
    """Write a row of pictures for each of ``options.texts`` to the PNG file ``out``.

    A row has up to 8 pictures, each from other noise. Raises ``UserError`` for a generator that
    does not know texts, or where the encoder of its captions cannot be had.
    """
    import torch

    from gan_core.pictures import image_grid, save_png

    check_knows_texts(generator)
    if out.suffix.lower() != ".png":
        raise UserError(f"--out {options.out} must end in .png for --texts")
    refuse_others(options, "texts", "truncation", with_="--texts")
    if options.truncation is not None:
        generator = generator.settled(options.truncation)
    vectors = encoded(generator, str(options.texts))
    columns = max(1, min(_COLUMNS, options.n // len(vectors)))
    asked = vectors.repeat_interleave(columns, dim=0)[:, None]
    parts = [
        generator.generate(
            index,
            noise=generator.noise(index, options.seed, options.truncation),
            conditions={"text": asked[index]},
        )
        for index in torch.arange(len(asked)).split(_BATCH)
    ]
    return save_png(image_grid(torch.cat(parts), columns), out)


def check_knows_texts(generator: ReleasedGenerator) -> None:
    """Raises ``UserError`` for a generator that is not asked by text."""
    if "text" not in generator.info["conditions"]:
        raise UserError(
            f"--texts needs a generator of captions (stackgan), this one is of "
            f"{generator.info['config']['variant']}: leave it out"
        )


def encoded(generator: ReleasedGenerator, texts: str) -> Tensor:
    """The vectors (T, d) of ``texts``, divided by semicolons, by the captions' own encoder."""
    from gan_core.data.texts import MINILM, create_encoder, encode_texts

    config = generator.info["config"]
    told = [text.strip() for text in texts.split(";") if text.strip()]
    if not told:
        raise UserError("--texts has no text in it")
    name = (config.get("data_options") or {}).get("text_encoder") or MINILM
    vectors = encode_texts(told, create_encoder(name), None)
    wanted = generator.spec.tensors["text"].shape[1]
    if vectors.shape[1] != wanted:
        raise UserError(
            f"the text encoder {name} makes {vectors.shape[1]} numbers, the generator was trained "
            f"on {wanted}: it is another model now"
        )
    return vectors
