"""The systems of the article, one file each; importing this package registers them all."""

from gan_core.variants import cgan, dcgan, gan, sngan

__all__ = ["cgan", "dcgan", "gan", "sngan"]
