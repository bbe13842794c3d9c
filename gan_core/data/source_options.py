"""Options that several sources have: their types, with what ``--help`` says of each."""

from __future__ import annotations

from typing import Annotated, Literal

ON_BAD_FILE = ("error", "skip")
OnBadFile = Annotated[
    Literal["error", "skip"],
    "what an example that cannot be read gets: an error that names it, or a counted, logged skip",
]
Download = Annotated[bool, "fetch missing files from the set's home page into --data-root"]
ImageSize = Annotated[
    int | None,
    "pixels a side: the central square is resized to it, with antialiasing; without it all "
    "pictures must have one size",
]
Channels = Annotated[int | None, "1 gray, 3 colour; not given: colour if any picture is"]
AllowUpscale = Annotated[
    bool, "enlarge pictures that are smaller than --image-size, instead of refusing them"
]
PictureCache = Annotated[
    str | None,
    "folder that keeps pictures as they are decoded, where they take 64 MiB or more, so that only "
    "the first start decodes them and processes share their memory, and that 500 or more files are "
    "all gray (what was not used for 30 days is deleted); none: no folder; not given: "
    "~/.cache/gan-pipelines/pictures",
]
InputFolder = Annotated[str | None, "folder of the inputs, below --data-root"]
TargetFolder = Annotated[str | None, "folder of the images to be made, below --data-root"]
