"""How turns are played: kernel by kernel, compiled or captured; in which precision and layout.

None of it changes what is trained: the same batches, noise and updates, up to rounding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal, get_args

import torch
from torch import nn

from gan_core.engine.world import World
from gan_core.errors import unknown_word
from gan_core.variant import Stage, Variant

Mode = Literal["eager", "compile", "graph", "compiled-graph"]
Precision = Literal["fp32", "tf32", "bf16"]

_SPECIALISATIONS = 64  # a network is compiled for each mode, batch size and set of frozen weights


@dataclasses.dataclass(frozen=True)
class Engine:
    """How a game's turns are played.

    ``mode``: "eager", kernel by kernel; "compile", networks by ``torch.compile``; "graph", a turn
    recorded as a CUDA graph; "compiled-graph", both. ``precision`` "bf16" multiplies matrices and
    convolves in bfloat16 (autocast; weights, sums, norms and losses stay float32), "tf32" lets a
    GPU do it with 10 bits of mantissa. ``channels_last`` keeps a pixel's channels together in
    memory, as convolutions on CPUs and tensor cores want them.
    """

    mode: Mode = "eager"
    precision: Precision = "fp32"
    channels_last: bool = False

    @property
    def captures(self) -> bool:
        """Whether turns are recorded as CUDA graphs."""
        return self.mode in ("graph", "compiled-graph")

    @property
    def compiles(self) -> bool:
        """Whether networks are compiled."""
        return self.mode in ("compile", "compiled-graph")

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context of an objective's forward pass."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def set_numerics(self) -> None:
        """Let this process multiply and convolve on a GPU as ``precision`` says, always alike.

        cuDNN may otherwise take convolutions that add up in another order every time, and no run
        would repeat itself. On an H200 that costs nothing in bfloat16 and up to 6 % in TF32.
        """
        torch.set_float32_matmul_precision("high" if self.precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = self.precision == "tf32"
        torch.backends.cudnn.deterministic = True

    def __post_init__(self) -> None:
        for name, known in (("mode", Mode), ("precision", Precision)):
            word: str = getattr(self, name)
            if word not in get_args(known):
                raise unknown_word(f"{name} of an engine", word, get_args(known))

    @property
    def memory_format(self) -> str:
        """The layout of pictures and convolutions, by torch's name."""
        return "channels_last" if self.channels_last else "contiguous"


def has_convolutions(networks: nn.Module) -> bool:
    """Whether any weight is that of a two-dimensional convolution."""
    return any(parameter.dim() == 4 for parameter in networks.parameters())


def _gains_by_channels_last(networks: nn.Module, device: torch.device, precision: str) -> bool:
    """Whether :func:`choose_engine` lets the channels of a pixel lie together.

    On a GPU where tensor cores do the convolutions. On a CPU everywhere but where pictures are
    normalised one by one: torch does that in the plain layout, to which every layer's maps would be
    turned and back (a tenth to a fifth of an iteration of translating pictures).
    """
    if not has_convolutions(networks):
        return False
    if device.type == "cuda":
        return precision != "fp32"
    return not any(isinstance(module, nn.InstanceNorm2d) for module in networks.modules())


def choose_engine(
    mode: str, precision: str, layout: str, variant: Variant, world: World
) -> tuple[Engine, list[str]]:
    """The engine for what the user asked for, and a line for each wish that cannot be had.

    "auto" is a CUDA graph on one GPU and eager elsewhere (several GPUs play graphs where they are
    asked for, which nobody has tried yet); tf32 on a GPU; channels_last for convolutions, where it
    pays.
    """
    refusals: list[str] = []
    cuda = world.device.type == "cuda"
    if mode == "auto":
        mode = "graph" if cuda and world.size == 1 else "eager"
    elif mode in ("graph", "compiled-graph") and not cuda:
        without = "eager" if mode == "graph" else "compile"
        refusals.append(f"--engine {mode} needs a CUDA device: playing {without}")
        mode = without
    if precision == "auto":
        precision = "tf32" if cuda else "fp32"
    elif precision == "tf32" and not cuda:
        refusals.append("--precision tf32 is for GPUs: multiplying in float32")
        precision = "fp32"
    if layout == "auto":
        pays = _gains_by_channels_last(variant, world.device, precision)
        layout = "channels_last" if pays else "contiguous"
    # The words were checked when the options were read.
    known: dict[str, Any] = {"mode": mode, "precision": precision}
    return Engine(**known, channels_last=layout == "channels_last"), refusals


def compile_networks(variant: Variant, stage: Stage) -> list[str]:
    """Compile the networks that play in ``stage``, and those that its objectives call beside them;
    returns a line for each that cannot be.

    Compiled is the call of a network, whoever makes it (not its other methods, unless they make
    it); its copies (for sampling) and its name among the weights are as before.
    """
    import torch._inductor.config

    torch._dynamo.config.recompile_limit = max(
        torch._dynamo.config.recompile_limit, _SPECIALISATIONS
    )
    torch._inductor.config.fallback_random = True  # dropout draws as it does uncompiled
    differentiated = _differentiated_twice(stage)
    for name in _networks_of(variant, stage):
        if name not in differentiated:
            getattr(variant, name).compile(dynamic=False)
    return [
        f"{name} is not compiled: the objective of {player} differentiates its gradient, which "
        "compiled code cannot do"
        for name, player in differentiated.items()
    ]


def _networks_of(variant: Variant, stage: Stage) -> Iterable[str]:
    """Names of the networks of the players of ``stage``, of earlier stages (which it may stand on),
    and of those that are not learnt.
    """
    stages = variant.stages()
    upto = stages[: 1 + [s.name for s in stages].index(stage.name)]
    learnt = [name for s in upto for player in s.players for name in player.networks]
    names = dict.fromkeys([*learnt, *variant.unlearnt_networks])
    return [name for name in names if hasattr(variant, name)]


def _differentiated_twice(stage: Stage) -> dict[str, str]:
    """Networks under a second derivative, each with the player that asks for it."""
    return {name: player.name for player in stage.players for name in player.second_order}
