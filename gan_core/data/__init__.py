"""What a GAN learns from: sources by name, and examples as named tensors.

Importing this package registers the built-in sources.
"""

from gan_core.data import (
    captions,
    digits,
    folder,
    hires,
    idx,
    midi,
    mixtures,
    pairs,
    stacked,
    torchvision_sets,
    unpaired,
)
from gan_core.data.examples import Batch, DataSpec, Examples, Split, TensorSpec
from gan_core.data.loading import check_examples, create_source, load_examples, source_options
from gan_core.data.mixtures import MIXTURES, Mixture, grid_modes, ring_modes
from gan_core.data.sources import SOURCES, Source, register

__all__ = [
    "MIXTURES",
    "SOURCES",
    "Batch",
    "DataSpec",
    "Examples",
    "Mixture",
    "Source",
    "Split",
    "TensorSpec",
    "captions",
    "check_examples",
    "create_source",
    "digits",
    "folder",
    "grid_modes",
    "hires",
    "idx",
    "load_examples",
    "midi",
    "mixtures",
    "pairs",
    "register",
    "ring_modes",
    "source_options",
    "stacked",
    "torchvision_sets",
    "unpaired",
]
