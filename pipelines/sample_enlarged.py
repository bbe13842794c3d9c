"""``sample --inputs`` of a super-resolution generator: one's own pictures, whole and larger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gan_core.errors import UserError
from gan_core.paths import user_path
from pipelines.sample_inputs import check_apart, pictures_in
from pipelines.sample_options import refuse_others

if TYPE_CHECKING:
    from torch import Tensor

    from gan_core.release import ReleasedGenerator
    from pipelines.sample import SampleOptions


def enlarges(generator: ReleasedGenerator) -> bool:
    """Whether it makes small pictures larger."""
    from gan_core.variants.srgan import SRGAN

    return isinstance(generator.variant, SRGAN)


def write_enlarged(
    generator: ReleasedGenerator, options: SampleOptions, out: Path
) -> Iterator[str]:
    """Enlarge the first ``--n`` pictures of the folder ``--inputs``, in the order of their names.

    Each is written under its name as a PNG into the folder ``out``. Gives a line for each as soon
    as it is there; raises ``UserError`` for a picture that cannot be read, before any is enlarged,
    and rather than overwrite one of them.
    """
    from gan_core.data.examples import to_pixels
    from gan_core.pictures import save_png

    if out.suffix.lower() == ".png":
        raise UserError(
            f"--out {out} must be a folder, which gets the enlarged pictures: they differ in size"
        )
    refuse_others(options, "inputs", with_="--inputs")
    folder = user_path(str(options.inputs), "--inputs")
    paths = pictures_in(folder)
    check_apart(out, folder, paths)
    for path in paths[: options.n]:  # decoded twice: that is nothing beside enlarging them
        read_whole(generator, path)
    for path in paths[: options.n]:
        low = read_whole(generator, path)
        high = to_pixels(enlarged(generator, low))[0]
        made = save_png(high, out / f"{path.stem}.png")
        rows, columns = high.shape[-2:]
        yield f"{path.name}: {low.shape[-1]} x {low.shape[-2]} to {columns} x {rows}, {made}"
    if options.n < len(paths):
        yield f"enlarged {options.n} of {len(paths)} pictures: all with --n {len(paths)}"


def read_whole(generator: ReleasedGenerator, path: Path) -> Tensor:
    """The picture (1, C, rows, columns) in [-1, 1], in the channels that the generator knows."""
    import torch

    from gan_core.data.examples import to_unit_range
    from gan_core.data.pictures import SKIP, BadPicture, PictureFormat

    try:
        pixels = PictureFormat(generator.spec.target_shape[0]).read(str(path))
    except BadPicture as problem:
        raise UserError(str(problem).removesuffix(SKIP)) from None
    return to_unit_range(torch.from_numpy(pixels.copy())[None])


def enlarged(generator: ReleasedGenerator, low: Tensor) -> Tensor:
    """What the generator makes of ``low``, (1, C, rows, columns), tile by tile."""
    import torch

    from gan_core.tiles import enlarged_in_tiles
    from gan_core.variants.srgan import SRGAN

    variant = generator.variant
    assert isinstance(variant, SRGAN)

    def enlarge(part: Tensor) -> Tensor:
        return generator.generate(torch.zeros(1, dtype=torch.int64), conditions={"low": part})

    return enlarged_in_tiles(enlarge, low, variant.scale, variant.generator.reach)
