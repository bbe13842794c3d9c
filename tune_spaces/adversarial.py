"""The dimensions of every system of one generator and one discriminator.

They are what the article names as GANs' sensitivity: how often and how fast each player learns,
what noise the generator is fed, and what the players' losses are.
"""

from __future__ import annotations

from ray import tune

from tune_spaces import Dimension


def adversarial(**changes: Dimension | None) -> dict[str, Dimension]:
    """The shared dimensions; ``changes`` replace, add, or (``None``) take away by name."""
    shared = {
        "k": Dimension(
            tune.choice([1, 2, 3, 5]),
            "1 in most recipes; WGAN and SN-GAN take 5; more costs time without having helped",
        ),
        "lr_d": Dimension(
            tune.loguniform(2e-5, 2e-3),
            "Adam at 2e-4 in nearly every paper (SN-GAN tries 1e-4 to 1e-3): a decade either way",
        ),
        "lr_g": Dimension(
            tune.loguniform(2e-5, 2e-3),
            "apart from lr_d, since the ratio of the two matters (Heusel et al. 2017)",
        ),
        "beta1": Dimension(
            tune.choice([0.0, 0.5, 0.9]),
            "the three values of published recipes: SAGAN and BigGAN 0, DCGAN 0.5, Adam's own 0.9",
        ),
        "beta2": Dimension(
            tune.choice([0.9, 0.99, 0.999]),
            "WGAN-GP and SN-GAN take 0.9, Adam's own is 0.999; small ones follow a moving target",
        ),
        "batch_size": Dimension(
            tune.choice([32, 64, 128, 256]),
            "64 to 128 in the papers up to 2018; larger helped BigGAN; 32 for small data",
        ),
        "loss": Dimension(
            tune.choice(["minimax", "non-saturating", "least-squares", "hinge", "wasserstein"]),
            "those that ask for nothing else (relativistic wants R1 and R2): of the like none won "
            "everywhere in Lucic et al. 2018 (arXiv:1711.10337)",
        ),
        "prior": Dimension(
            tune.choice(["gaussian", "uniform"]),
            "uniform until DCGAN, gaussian since; advised for by practice, not by theory",
        ),
        "latent": Dimension(
            tune.choice([32, 64, 100, 128, 256]),
            "100 and 128 in the papers; fewer dimensions than the data have cannot cover them",
        ),
        "r1": Dimension(
            tune.choice([0.0, 0.1, 1.0, 10.0]),
            "none in these papers; Mescheder et al. 2018 take 10, low resolutions need less",
        ),
        "ema": Dimension(
            tune.choice([0.0, 0.99, 0.999]),
            "none before 2018; 0.99 is 0.999 for 890 iterations, and that 0.9999 for 8,990: the "
            "decay rises with them, so a larger one would be another in long trials alone",
        ),
    }
    return {name: dimension for name, dimension in {**shared, **changes}.items() if dimension}
