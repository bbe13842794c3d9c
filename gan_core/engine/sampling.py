"""Sampling that disturbs nothing: frozen copies of networks, noise of its own, no global state."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gan_core.data.examples import Batch
from gan_core.data.views import View
from gan_core.errors import UserError
from gan_core.priors import draw, truncated
from gan_core.randomness import stream_key
from gan_core.variant import NoiseSpec, Variant


def copy_networks(
    variant: Variant, networks: Sequence[str], *, share_weights: bool = False
) -> Variant:
    """``variant`` with frozen copies, in evaluation mode, of the networks named.

    Whatever is done to the copies, the originals keep their weights, buffers and modes; except
    with ``share_weights``, where only buffers and modes are the copies' own: much cheaper for a
    look at networks as they are now, by which no weight is changed.
    """
    clone = copy.copy(variant)
    clone._modules = dict(variant._modules)
    clone._buffers = {n: b if b is None else b.clone() for n, b in variant._buffers.items()}
    for name in networks:
        network = getattr(variant, name)
        shared = network.parameters() if share_weights else ()
        memo = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in shared}
        clone._modules[name] = copy.deepcopy(network, memo).eval().requires_grad_(False)
    return clone


@contextmanager
def undisturbed() -> Iterator[None]:
    """Leave the global random states of the CPU and of the current CUDA device as they were."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        yield


class StoredConditions:
    """Conditions that stay as they are stored, where they are, until samples ask for them.

    Sample i gets row ``orders[name][i % N]`` of the N rows of ``stored[name]`` (without an order
    row i % N) as ``view`` shows it to the networks, on ``device``.
    """

    def __init__(
        self,
        stored: Mapping[str, Tensor],
        view: View,
        device: torch.device,
        orders: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._stored, self._view, self._device = dict(stored), view, device
        self._orders = {n: order.to(stored[n].device) for n, order in (orders or {}).items()}

    def __call__(self, index: Tensor) -> Batch:
        """The conditions of the samples ``index`` (int64, (N,)), by name."""
        chosen = {name: self._rows(name, index) for name in self._stored}
        return self._view.present(chosen)

    def _rows(self, name: str, index: Tensor) -> Tensor:
        values, order = self._stored[name], self._orders.get(name)
        place = index.to(values.device) % len(values)
        return values[place if order is None else order[place]].to(self._device)


class Sampler:
    """Makes samples by number: the same number is the same sample, in any batch, on any worker.

    ``variant`` holds the networks to use (copies, see :func:`copy_networks`), ``stage`` is the name
    of the stage that they have been trained in, and ``seed`` decides the noise. ``conditions`` are
    what conditional variants are asked for, by name (N, ...), such as ``label`` (N,) int64, on
    ``device``: sample i gets ``conditions[name][i % N]``. A function of indices (N,) may stand for
    them (:class:`StoredConditions`).
    """

    def __init__(
        self,
        variant: Variant,
        stage: str,
        seed: int,
        device: torch.device,
        conditions: Batch | Callable[[Tensor], Batch] | None = None,
    ) -> None:
        self.variant, self.stage, self.device = variant, stage, device
        self._seed = seed
        self._conditions = conditions or {}
        self._noise = [s for s in variant.noise(stage) if s.read_by("sample")]
        self._keys = {s.name: stream_key(seed, "sampling", s.name) for s in self._noise}

    def noise(self, index: Tensor, truncation: float | None = None) -> Batch:
        """The noise of the samples ``index`` (int64, (N,)), by name.

        ``truncation``: numbers beyond it (see :func:`gan_core.priors.truncated`) are drawn again
        until they are not (Brock et al. 2018, arXiv:1809.11096, section 3.1); the others stay, so
        sample i keeps its likeness.
        """
        index = index.to(self.device)
        drawn = {s.name: draw(s.prior, self._keys[s.name], index, s.shape) for s in self._noise}
        if truncation is None:
            return drawn
        return drawn | {
            s.name: self._truncated(s, drawn[s.name], index, truncation) for s in self._noise
        }

    def _truncated(self, spec: NoiseSpec, values: Tensor, index: Tensor, bound: float) -> Tensor:
        prior = truncated(spec.prior, bound)
        if prior is None:
            return values
        key = stream_key(self._seed, "truncation", spec.name)
        # The outcome of drawing again and again, in one draw.
        again = draw(prior, key, index, spec.shape)
        return torch.where(prior.holds(values), values, again)

    def conditions(self, index: Tensor) -> Batch:
        """The conditions of the samples ``index``, by name."""
        if callable(self._conditions):
            return self._conditions(index)
        index = index.to(self.device)
        return {name: values[index % len(values)] for name, values in self._conditions.items()}

    @torch.no_grad()
    def __call__(
        self, index: Tensor, noise: Batch | None = None, conditions: Batch | None = None
    ) -> Batch:
        """Generated tensors for the samples ``index``, by name."""
        batch = self.noise(index) | (noise or {})
        batch |= self.conditions(index) if conditions is None else conditions
        made: object = self.variant.sample(self.stage, batch)
        if not isinstance(made, dict):
            raise UserError(
                f"`sample` of {type(self.variant).__name__} gives a {type(made).__name__}, not "
                'tensors by name: return {"image": images}, or as the target is called'
            )
        if not self.variant.targets & made.keys():
            raise UserError(
                f"`sample` of {type(self.variant).__name__} gives {_quoted(made)}, none of its "
                f"`targets`, {_quoted(self.variant.targets)}: return the target by its name"
            )
        return made

    def network(self, name: str) -> nn.Module:
        """One of the networks in use."""
        return getattr(self.variant, name)


def _quoted(names: Iterable[object]) -> str:
    return " or ".join(sorted(map(repr, names))) or "nothing"
