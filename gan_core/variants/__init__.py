"""The systems of the article, one file each; importing this package registers them all."""

from gan_core.variants import (
    acgan,
    biggan,
    cgan,
    cyclegan,
    dcgan,
    gan,
    lapgan,
    midinet,
    pix2pix,
    sagan,
    sngan,
    srgan,
    stackgan,
)

__all__ = [
    "acgan",
    "biggan",
    "cgan",
    "cyclegan",
    "dcgan",
    "gan",
    "lapgan",
    "midinet",
    "pix2pix",
    "sagan",
    "sngan",
    "srgan",
    "stackgan",
]
