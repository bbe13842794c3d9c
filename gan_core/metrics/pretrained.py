"""Extractors that come trained on ImageNet: MobileNetV2 and the Inception of the official FID."""

from __future__ import annotations

import io
import itertools
import logging
import urllib.error
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gan_core.data.examples import to_pixels
from gan_core.errors import UserError, first_line
from gan_core.metrics.features import EXTRACTORS, Extractor, ExtractorSetup
from gan_core.metrics.numerics import private_randomness
from gan_core.metrics.ranks import share_state
from gan_core.weights import MOBILENET_FILE, hub_folder, mobilenet_places, read_weights

log = logging.getLogger(__name__)

_MOBILENET_URL = f"https://download.pytorch.org/models/{MOBILENET_FILE}"
_INCEPTION_FILES = (  # the same weights under the names of torch-fidelity and of pytorch-fid
    "weights-inception-2015-12-05-6726825d.pth",
    "pt_inception-2015-12-05-6726825d.pth",
)
_INCEPTION_URL = (
    f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{_INCEPTION_FILES[0]}"
)


def _download(extractor: str, url: str) -> Path:
    path = hub_folder() / url.rsplit("/", 1)[-1]
    log.info("downloading the weights of %s from %s", extractor, url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        expected = path.stem.rsplit("-", 1)[-1]  # the first digits of its sha256, by convention
        torch.hub.download_url_to_file(url, str(path), hash_prefix=expected, progress=False)
    except (OSError, urllib.error.URLError, RuntimeError) as error:
        raise UserError(
            f"cannot download the weights of --extractor {extractor} ({first_line(error)}): put "
            f"{path.name} into {path.parent}, or name the file with --extractor-weights"
        ) from None
    return path


def _find(extractor: str, setup: ExtractorSetup, places: Iterable[Path], url: str) -> Path:
    if setup.weights is not None:
        if not setup.weights.is_file():
            raise UserError(f"--extractor-weights: there is no file {setup.weights}")
        return setup.weights
    for path in places:
        if path.is_file():
            return path
    if setup.download:
        return _download(extractor, url)
    raise UserError(
        f"its weights are not on this machine: put {url.rsplit('/', 1)[-1]} into "
        f"{hub_folder()}, or let --extractor {extractor} download them"
    )


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    state, digest = read_weights(path)
    return state, {"weights": digest[:12], "file": str(path)}


def _filled(
    extractor: str,
    build: Callable[[dict[str, Tensor]], nn.Module],
    setup: ExtractorSetup,
    find: Callable[[], Path],
) -> tuple[nn.Module, str]:
    """The network that ``build`` makes of the weights that rank 0 finds, and their hash."""
    state, facts = share_state(setup.world, lambda: _read(find()))
    try:
        with private_randomness(0):  # networks draw initial weights, if only to be overwritten
            return build(state), facts["weights"]
    except RuntimeError:
        raise UserError(
            f"{facts['file']} holds the weights of another network than {extractor}: "
            "name another file with --extractor-weights"
        ) from None


def _in_colour(images: Tensor) -> Tensor:
    if images.shape[1] == 3:
        return images
    if images.shape[1] == 1:
        return images.expand(-1, 3, -1, -1)
    raise UserError(
        f"pictures with {images.shape[1]} channels have no ImageNet features: "
        "choose --extractor classifier"
    )


def _fold_batch_norms(network: nn.Module) -> None:
    """Let convolutions of ``network``, which only sees, do what follows them: a fifth less time.

    What it computes stays the same up to rounding.
    """
    for block in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        layers = list(block.named_children())
        for (first, layer), (second, following) in itertools.pairwise(layers):
            if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                setattr(block, first, fuse_conv_bn_eval(layer, following))
                setattr(block, second, nn.Identity())


@EXTRACTORS.register("mobilenet_v2")
class MobileNetExtractor(Extractor):
    """The pooled features of torchvision's MobileNetV2 (Sandler et al. 2018), ImageNet V1 weights.

    Light enough for a CPU. Features of an ImageNet network, but not those of the official FID:
    compare its figures only with each other.
    """

    name = "mobilenet_v2"
    summary = "torchvision's MobileNetV2, 1280-d; light, for any pictures, not the official FID"
    chunk = 64
    mean = (0.485, 0.456, 0.406)
    deviation = (0.229, 0.224, 0.225)

    @classmethod
    def create(cls, setup: ExtractorSetup) -> MobileNetExtractor:
        """From ``setup.weights``, torch's hub folder, an installed package, or a download.

        Raises ``UserError`` if the weights cannot be had or are another network's.
        """

        def find() -> Path:
            return _find(cls.name, setup, mobilenet_places(), _MOBILENET_URL)

        def build(state: dict[str, Tensor]) -> nn.Module:
            from torchvision.models import mobilenet_v2

            network = mobilenet_v2(weights=None)
            network.load_state_dict(state)
            _fold_batch_norms(network.eval())
            return network

        network, digest = _filled(cls.name, build, setup, find)
        protocol = {
            "weights": digest,
            "resizer": "bicubic with antialiasing to 224",
            "precision": "fp32",
            "layer": "pooled features, 1280-d",
        }
        return cls(network, protocol, setup.world.device)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        images = F.interpolate(
            _in_colour(images), size=(224, 224), mode="bicubic", antialias=True, align_corners=False
        )
        unit = images.add(1).div(2).clamp(0, 1)
        mean, deviation = unit.new_tensor(self.mean), unit.new_tensor(self.deviation)
        normalised = (unit - mean[:, None, None]) / deviation[:, None, None]
        features: Tensor = self.network.features(  # type: ignore[operator]
            normalised.contiguous(memory_format=torch.channels_last)
        )
        return features.mean((2, 3)), None


@EXTRACTORS.register("inception")
class InceptionExtractor(Extractor):
    """The Inception of the official FID (Heusel et al. 2017), as torch-fidelity converted it.

    2048 pooled features and the logits without bias, TensorFlow's resizing included.
    """

    name = "inception"
    summary = "the Inception of the official FID, 2048-d; its figures have no suffix"
    chunk = 64

    @classmethod
    def create(cls, setup: ExtractorSetup) -> InceptionExtractor:
        """From ``setup.weights``, torch's hub folder, or a download.

        Raises ``UserError`` if the weights cannot be had or are another network's.
        """

        def find() -> Path:
            places = [hub_folder() / name for name in _INCEPTION_FILES]
            return _find(cls.name, setup, places, _INCEPTION_URL)

        def build(state: dict[str, Tensor]) -> nn.Module:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

            file = io.BytesIO()  # torch-fidelity reads a file; ours has been checked already
            torch.save({name: tensor.cpu() for name, tensor in state.items()}, file)
            file.seek(0)
            layers = ["2048", "logits_unbiased"]
            return FeatureExtractorInceptionV3("inception-v3-compat", layers, file)

        network, digest = _filled(cls.name, build, setup, find)
        protocol = {
            "weights": digest,
            "resizer": "TensorFlow 1 bilinear to 299",
            "precision": "fp32",
            "layer": "pool3, 2048-d",
        }
        return cls(network, protocol, setup.world.device)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        features, logits = self.network(to_pixels(_in_colour(images)))
        return features, logits
