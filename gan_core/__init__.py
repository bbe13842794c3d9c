"""The game of generative adversarial nets: PyTorch, and nothing of Ray or MLflow."""

from gan_core.errors import UserError

__all__ = ["UserError"]
