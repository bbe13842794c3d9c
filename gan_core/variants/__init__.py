"""The systems of the article, one file each; importing this package registers them all."""

from gan_core.variants import acgan, biggan, cgan, dcgan, gan, midinet, sagan, sngan, srgan

__all__ = ["acgan", "biggan", "cgan", "dcgan", "gan", "midinet", "sagan", "sngan", "srgan"]
