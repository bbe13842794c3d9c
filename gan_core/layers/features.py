"""Features of pictures by networks trained on ImageNet, for losses that compare what is seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from gan_core.errors import UserError
from gan_core.layers.external import External
from gan_core.paths import user_path
from gan_core.weights import hub_folder, mobilenet_places, read_weights

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_VGG_FILE = "vgg19-dcbb9e9d.pth"


def _vgg19(state: dict[str, Tensor]) -> nn.Module:
    """VGG19 up to the activation of the 4th convolution before the 5th pooling."""
    from torchvision.models import vgg

    network = vgg.make_layers(vgg.cfgs["E"])  # without the 124 million weights of the classifier
    parts = {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
    network.load_state_dict(parts)
    return network[:36]


def _mobilenet_v2(state: dict[str, Tensor]) -> nn.Module:
    """MobileNetV2 up to the last of its blocks with 32 channels, at an eighth of the size."""
    from torchvision.models import mobilenet_v2

    network = mobilenet_v2(weights=None)
    network.load_state_dict(state)
    return network.features[:7]


@dataclasses.dataclass(frozen=True)
class _Network:
    """``build`` makes the layers from a whole state; ``divisor`` scales their output."""

    build: Callable[[dict[str, Tensor]], nn.Module]
    places: Callable[[], Iterable[Path]]
    file: str
    divisor: float


FEATURES = {
    # Ledig et al. 2017, section 3.2: features divided by 12.75 weigh as much as pixels do.
    "vgg19": _Network(_vgg19, lambda: [hub_folder() / _VGG_FILE], _VGG_FILE, 12.75),
    "mobilenet_v2": _Network(_mobilenet_v2, mobilenet_places, "mobilenet_v2-b0353104.pth", 1.0),
}
"""The networks by name."""


class Features(nn.Module):
    """Pictures (N, 1 or 3, H, W) in [-1, 1] to feature maps, divided by ``divisor``."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, layers: nn.Module, divisor: float) -> None:
        super().__init__()
        self.layers, self.divisor = layers, divisor
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None])
        self.register_buffer("deviation", torch.tensor(_DEVIATION)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        unit = (images.expand(-1, 3, -1, -1) + 1) / 2
        return self.layers((unit - self.mean) / self.deviation) / self.divisor


def load_features(name: str, weights: str | None, option: str) -> External:
    """The network ``name``, from the file ``weights`` or (``None``) from where torch keeps it.

    ``option``: how the user gives the file, for the ``UserError`` if it is missing, damaged or
    another network's.
    """
    network = FEATURES[name]
    path = _find(name, weights, option)
    state, digest = read_weights(path)
    try:
        with torch.random.fork_rng(devices=[]):  # initial weights are drawn, to be overwritten
            layers = network.build(state)
    except RuntimeError:
        raise UserError(
            f"{path} holds the weights of another network than {name}: name torchvision's "
            f"{network.file} with {option}"
        ) from None
    return External(Features(layers, network.divisor), digest, name)


def _find(name: str, weights: str | None, option: str) -> Path:
    if weights is not None:
        path = user_path(weights, option)
        if not path.is_file():
            raise UserError(f"{option}: there is no file {path}")
        return path
    for path in FEATURES[name].places():
        if path.is_file():
            return path
    raise UserError(
        f"the weights of {name} are not on this machine: name torchvision's "
        f"{FEATURES[name].file} with {option}, or choose other features"
    )
