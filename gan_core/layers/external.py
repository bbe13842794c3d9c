"""Networks that others have trained: used, never trained, and kept by their hash alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gan_core.errors import UserError


class External(nn.Module):
    """A frozen network from a file, through which gradients flow to its input alone.

    It has no parameters as far as players, optimisers and checkpoints know: its state is the
    ``digest`` of its weights (32 bytes of sha256), and loading a state with another digest
    raises ``UserError``. The file is the user's to keep.
    """

    digest: Tensor

    def __init__(self, network: nn.Module, sha256: str, name: str) -> None:
        super().__init__()
        self.name = name
        # In a tuple: an attribute that is a module would be trained, saved and set to train.
        self._held = (network.eval().requires_grad_(False),)
        self.register_buffer("digest", torch.tensor(list(bytes.fromhex(sha256)), dtype=torch.uint8))

    @property
    def network(self) -> nn.Module:
        """The network itself, in evaluation mode."""
        return self._held[0]

    def forward(self, values: Tensor) -> Tensor:
        return self.network(values)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> External:
        """Moves to a device or a precision go for the network too."""
        self.network._apply(fn)
        super()._apply(fn, recurse)
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **words: Any
    ) -> None:
        saved = state_dict.get(prefix + "digest")
        if saved is not None and not torch.equal(saved.cpu(), self.digest.cpu()):
            was, now = (bytes(d.cpu().tolist()).hex()[:12] for d in (saved, self.digest))
            raise UserError(
                f"the weights of {self.name} have changed since (sha256 {was}..., now {now}...): "
                "give the file that the run began with"
            )
        super()._load_from_state_dict(state_dict, prefix, *args, **words)
