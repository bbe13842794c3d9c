"""What a generator that translates pictures makes of one's own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from gan_core.errors import UserError
from gan_core.paths import exists, user_path
from pipelines.sample_options import refuse_others

if TYPE_CHECKING:
    from torch import Tensor

    from gan_core.release import ReleasedGenerator
    from pipelines.sample import SampleOptions

_BATCH = 64


def write_translations(
    generator: ReleasedGenerator, options: SampleOptions, out: Path
) -> tuple[str, ...]:
    """Translate the first ``--n`` pictures of the folder ``--inputs``, in the order of their names.

    ``out`` that ends in .png gets one sheet with a row for each picture: itself and what became of
    it. Otherwise it is a folder, with one PNG for each under its name. Returns lines to print;
    raises ``UserError`` for a generator that translates nothing, for pictures it cannot see, and
    rather than overwrite one of them.
    """
    import torch

    from gan_core.data.examples import to_pixels
    from gan_core.pictures import image_grid, save_png

    if "input" not in generator.info["conditions"]:
        raise UserError(
            f"--inputs needs a generator that translates or enlarges pictures, this one is "
            f"{generator.info['config']['variant']}: leave it out"
        )
    if out.suffix.lower() not in (".png", ""):
        raise UserError(f"--out {out} must end in .png (one sheet), or be a folder (a file each)")
    refuse_others(options, "inputs", with_="--inputs")
    folder = user_path(str(options.inputs), "--inputs")
    paths = pictures_in(folder)
    check_apart(out, folder, paths)
    chosen = paths[: options.n]
    given = read_inputs(generator, chosen)
    parts = [
        generator.generate(index, conditions={"input": given[index]}, seed=options.seed).cpu()
        for index in torch.arange(len(chosen)).split(_BATCH)
    ]
    made = torch.cat(parts)
    told = f"translated {len(chosen)} of {len(paths)} pictures: all with --n {len(paths)}"
    lines = (told,) if len(chosen) < len(paths) else ()
    if out.suffix.lower() == ".png":
        channels = max(given.shape[1], made.shape[1])
        both = [images.expand(-1, channels, -1, -1) for images in (given, made)]
        pairs = max(1, round(math.sqrt(len(made) / 2)))  # side by side, in a sheet about square
        sheet = image_grid(torch.stack(both, dim=1).flatten(0, 1), columns=2 * pairs)
        return (*lines, str(save_png(sheet, out)))
    for path, image in zip(chosen, made, strict=True):
        save_png(to_pixels(image), out / f"{path.stem}.png")
    return (*lines, str(out))


def pictures_in(folder: Path) -> list[Path]:
    """The pictures in ``folder``, by name; ``UserError`` if there are none, or two of one name."""
    from gan_core.data.pictures import EXTENSIONS

    if not exists(folder) or not folder.is_dir():
        raise UserError(f"--inputs {folder}: there is no such folder")
    try:
        visible = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as problem:
        raise UserError(f"--inputs {folder}: it cannot be listed ({problem.strerror})") from None
    found = sorted(p for p in visible if p.suffix.lower() in EXTENSIONS and not p.is_dir())
    if not found:
        raise UserError(f"--inputs {folder}: it holds no pictures")
    stems: dict[str, Path] = {}
    for path in found:
        if stems.setdefault(path.stem, path) is not path:
            raise UserError(
                f"{stems[path.stem]} and {path} have one name but for the ending: rename one"
            )
    return found


def check_apart(out: Path, folder: Path, paths: list[Path]) -> None:
    """Raises ``UserError`` if ``out`` is the ``folder`` of the inputs, or one of their ``paths``.

    Results have their inputs' names: they would take the place of the user's own pictures.
    """
    if out.exists() and any(out.samefile(given) for given in (folder, *paths)):
        what = "the folder" if out.is_dir() else "one of the pictures"
        raise UserError(f"--out {out} is {what} of --inputs: name another, which overwrites none")


def read_inputs(generator: ReleasedGenerator, paths: list[Path]) -> Tensor:
    """The pictures ``paths`` as the generator sees its inputs: (N, C, S, S) in [-1, 1].

    As in training they become their central square, in the size of the source's pictures. Raises
    ``UserError`` for one that cannot be read.
    """
    from gan_core.data.examples import Examples
    from gan_core.data.pictures import SKIP, BadPicture, PictureFormat, read_pictures

    spec = generator.spec
    channels, rows, columns = spec.tensors["input"].shape
    size = rows if rows == columns else None
    form = PictureFormat(channels, size, allow_upscale=True)
    texts = [str(path) for path in paths]
    try:
        pictures, _ = read_pictures(texts, form, (channels, rows, columns), skip_bad=False)
    except BadPicture as problem:
        raise UserError(str(problem).removesuffix(SKIP)) from None
    view = generator.stage.view
    stored = view.prepare(Examples({"image": pictures, "input": pictures}, spec, "inputs"))
    return view.present({"input": stored.tensors["input"]})["input"]
