"""A CUDA device on a machine without one: tensors that say they lie there, and mix with no others.

What a tensor on it holds is held, and computed with, in the host's memory; so the values are those
of the CPU, and what is seen here is everything about a GPU but its kernels: a tensor of the host
that meets one of the device, NumPy on a device's tensor, a batch that was never copied.

To torch these tensors lie on the meta device, of which autograd asks no streams; to Python, where
this project asks, on ``cuda:0``. Operations that are given a CUDA device are given the meta device
in its place, and what they make there is made here.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

CUDA = torch.device("cuda", 0)
_HELD, _HOST = torch.device("meta"), torch.device("cpu")
_COPIES = {"copy_", "_to_copy"}
_BY_INDEX = {"index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_"}


class DeviceTensor(Tensor):
    """A tensor on the pretended device; ``host`` has its values."""

    host: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, host: Tensor) -> DeviceTensor:
        """As ``host`` is, to torch on the meta device."""
        made: DeviceTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            host.size(),
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            device=_HELD,
            requires_grad=host.requires_grad,
        )
        made.host = host.detach()
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})

    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = is_meta = property(lambda self: False)  # type: ignore[assignment]

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        """Refused, as by torch."""
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    __array__ = numpy  # type: ignore[assignment]

    def tolist(self) -> Any:
        """The values, read back."""
        return self.host.tolist()

    def record_stream(self, stream: object) -> None:
        """Nothing: there is one stream."""

    def __repr__(self) -> str:  # type: ignore[override]
        return f"{self.host!r} on {CUDA}"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            twin: Tensor = DeviceTensor(self.host.clone())
            weight = getattr(self, "_is_param", False)
            twin = nn.Parameter(twin, self.requires_grad) if weight else twin
            memo[id(self)] = twin.requires_grad_(self.requires_grad)
        found: Tensor = memo[id(self)]
        return found

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["host"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], *_: object) -> DeviceTensor:
        return DeviceTensor(inner["host"])


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """``func`` on the values; what it makes lies where torch would have made it."""
    name = func._schema.name.partition("::")[2]
    if name in ("is_pinned", "_pin_memory"):  # for which there would have to be a GPU
        return False if name == "is_pinned" else args[0]
    given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
    there = [value for value in given if isinstance(value, DeviceTensor)]
    if name not in _COPIES and there:
        _check_together(func, name, args, given)
    device = kwargs.get("device")
    if device is not None:
        stays = torch.device(device).type == _HELD.type
        kwargs = kwargs | {"device": _HOST}
    else:
        stays = isinstance(args[0], DeviceTensor) if name == "copy_" else bool(there)
    if kwargs.get("pin_memory"):
        kwargs = kwargs | {"pin_memory": False}
    host_args, host_kwargs = tree_map_only(DeviceTensor, lambda t: t.host, (args, kwargs))
    found = func(*host_args, **host_kwargs)
    if not stays:
        return found.clone() if name == "_to_copy" and found is host_args[0] else found
    made = tree_map_only(Tensor, DeviceTensor, found)
    shares = there and any(result.alias_info for result in func._schema.returns)
    return return_and_correct_aliasing(func, args, kwargs, made) if shares else made


def _check_together(func: Any, name: str, args: Any, given: list[Tensor]) -> None:
    """``RuntimeError`` where tensors of both sides meet; numbers and indices of the host may."""
    assert all(isinstance(t, DeviceTensor) for t in given if t.device.type == _HELD.type), name
    strangers = [t for t in given if not isinstance(t, DeviceTensor)]
    changed = func._schema.is_mutable and any(t is args[0] for t in strangers)
    if name in _BY_INDEX and not changed:
        values = tree_leaves(args[2:])  # put there, not indices
        strangers = [t for t in strangers if t is args[0] or any(t is value for value in values)]
    if changed or any(t.dim() for t in strangers):
        shapes = ", ".join(str(tuple(t.shape)) for t in strangers)
        raise RuntimeError(
            f"expected all tensors on the same device: {name} of the host's {shapes}"
        )


class _Computing(TorchDispatchMode):
    """For operations that are given no tensor of the device, but are asked to make one."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _compute(func, args, kwargs or {})


class _Naming(TorchFunctionMode):
    """Gives the meta device to what is given a CUDA device."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        words = kwargs or {}
        if func is torch.device:
            return func(*args, **words)
        if func in (torch.tensor, torch.as_tensor) and _meant(words.get("device")) is _HELD:
            return func(*args, **words | {"device": _HOST}).to(_HELD)
        if func is Tensor.new_tensor and isinstance(args[0], DeviceTensor):
            made = torch.tensor(*args[1:], **{"dtype": args[0].dtype, **words})
            return made.to(_HELD)
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            # Lists and numbers become tensors of the meta device within torch, unseen.
            kind = args[0].dtype
            value = [torch.tensor(v, dtype=kind) if _number(v) else v for v in args[2:]]
            args = (args[0], _indices(args[1]), *value)
        named = {name: _meant(word) if name == "device" else word for name, word in words.items()}
        return func(*map(_meant, args), **named)


def _number(value: object) -> bool:
    return isinstance(value, (int, float))


def _indices(key: Any) -> Any:
    """``key`` with tensors for its lists."""
    if isinstance(key, tuple):
        return tuple(map(_indices, key))
    return torch.tensor(key) if isinstance(key, list) else key


def _meant(word: Any) -> Any:
    """The meta device for a CUDA device; anything else as it is."""
    named = isinstance(word, str) and word.split(":")[0] == "cuda"
    return _HELD if named or (isinstance(word, torch.device) and word.type == "cuda") else word


class _Stream:
    """A stream, and an event on one: everything has been done already."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


@contextlib.contextmanager
def pretended_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """The device, for the thread that asks for it and those that begin meanwhile."""
    stream, run = _Stream(), threading.Thread.run

    def run_there(thread: threading.Thread) -> None:
        with _Naming(), _Computing():
            run(thread)

    stand_ins = {
        "_lazy_init": lambda: None,
        "current_device": lambda: CUDA.index,
        "synchronize": lambda device=None: None,
        "mem_get_info": lambda device=None: (1 << 36, 1 << 36),
        "get_rng_state": lambda device=None: torch.get_rng_state(),
        "set_rng_state": lambda state, device=None: torch.set_rng_state(state),
        "current_stream": lambda device=None: stream,
        "stream": lambda stream: contextlib.nullcontext(),
        "Stream": _Stream,
        "Event": _Stream,
    }
    with monkeypatch.context() as patch:
        for name, stand_in in stand_ins.items():
            patch.setattr(torch.cuda, name, stand_in)
        patch.setattr(threading.Thread, "run", run_there)
        with _Naming(), _Computing():
            yield CUDA
