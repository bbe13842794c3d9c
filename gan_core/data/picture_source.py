"""What sources of one's own pictures have in common: their options and checks, and one format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gan_core.data.kept_pictures import kept_channels, picture_folder
from gan_core.data.pictures import Half, PictureFormat, common_format
from gan_core.data.source_options import OnBadFile
from gan_core.data.sources import Source
from gan_core.errors import UserError


class PictureSource(Source):
    """A source of picture files.

    Raises ``UserError`` for ``image_size`` or ``channels`` that no picture can have.
    """

    def __init__(
        self,
        root: Path | None,
        *,
        on_bad_file: OnBadFile,
        image_size: int | None,
        channels: int | None,
        allow_upscale: bool,
        picture_cache: str | None,
    ) -> None:
        super().__init__(root, on_bad_file=on_bad_file)
        if image_size is not None and image_size < 1:
            raise UserError(f"--image-size must be at least 1, not {image_size}")
        if channels not in (None, 1, 3):
            raise UserError(f"--channels must be 1 (gray) or 3 (colour), not {channels}")
        self.image_size, self.channels = image_size, channels
        self.allow_upscale = allow_upscale
        self.picture_cache = picture_folder(picture_cache)

    @property
    def skip_bad(self) -> bool:
        """Whether files that cannot be used are left out, and counted, instead of an error."""
        return self.on_bad_file == "skip"

    def format_of(
        self, paths: Sequence[str], half: Half | None = None
    ) -> tuple[PictureFormat, tuple[int, int, int]]:
        """The format of the files ``paths`` of all splits, which so agree, and their shape."""
        return common_format(
            paths,
            channels=self.channels or kept_channels(paths, self.skip_bad, self.picture_cache),
            image_size=self.image_size,
            allow_upscale=self.allow_upscale,
            skip_bad=self.skip_bad,
            half=half,
        )
