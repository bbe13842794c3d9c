"""Which kernels an iteration's time goes to: a part of `benchmarks.speed`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed_ways import Setting, Timed, Way, make_all, wait
from gan_core.errors import UserError

ITERATIONS = 5
"""Iterations that are recorded, after the warm-up and :data:`SECONDS` of playing."""
SECONDS = 1.0
KINDS = {
    "copies and zeros": r"memcpy|memset|copy_kernel|fill|aten::(copy_|zero_|clone|cat)",
    "written by the compiler": r"^triton_|cpp_fused",
    "convolutions and products": (
        r"conv|gemm|cutlass|nvjet|cask|wgrad|dgrad|splitk|addpadding|gemv|"
        r"aten::(mm|addmm|bmm|mv|dot)|mkldnn"
    ),
    "optimisers and averages": r"multi_tensor_apply|optimizer|_foreach_|_fused_(adam|sgd)",
    "batch normalisation": r"batch_norm|layer_norm|group_norm",
}
"""What kernels do, and how their names are known; of several kinds the first."""
OTHER = "all else"


def kind_of(name: str) -> str:
    """The one of :data:`KINDS` that the kernel or operation ``name`` is of."""
    found = (kind for kind, words in KINDS.items() if re.search(words, name, re.IGNORECASE))
    return next(found, OTHER)


def profile_kernels(setting: Setting, ways: Sequence[Way], longest: int) -> dict[str, Any]:
    """Print, for each way, the time of an iteration by kind, and the ``longest`` kernels.

    On a CPU operations take their place, with the time of the thread that calls them.
    """
    if longest < 1:
        raise UserError(f"--kernels is a number of kernels, at least 1, not {longest}")
    loops = make_all({str(way): (setting, way) for way in ways})
    if not loops:
        raise UserError("none of these ways can be played")
    found = {
        "setting": setting.describe(),
        "machine": setting.machine(),
        "rows": [_profiled(timed) for timed in loops],
    }
    print(table(found, longest))
    return found


def _profiled(timed: Timed) -> dict[str, Any]:
    """Microseconds and launches of an iteration, by kernel."""
    timed.round(SECONDS)
    cuda = timed.setting.device == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as seen:
        for _ in range(ITERATIONS):
            timed.loop.iterate()
        wait(timed.setting.device)
    kernels = [
        {
            "name": each.key,
            "microseconds": _own_time(each, cuda) / ITERATIONS,
            "launches": each.count / ITERATIONS,
        }
        for each in seen.key_averages()
        if _own_time(each, cuda) > 0
    ]
    return {
        "way": timed.name,
        "milliseconds": timed.milliseconds,
        "kernels": sorted(kernels, key=lambda row: -row["microseconds"]),
    }


def _own_time(event: Any, cuda: bool) -> float:
    """Microseconds, without what it calls; 0 for what is not of the device."""
    if not cuda:
        return float(event.self_cpu_time_total)
    is_kernel = event.device_type == torch.autograd.DeviceType.CUDA
    return float(event.self_device_time_total) if is_kernel else 0.0


def table(found: dict[str, Any], longest: int) -> str:
    """Two tables in Markdown for each way."""
    lines = [f"{found['setting']}; {found['machine']}"]
    for row in found["rows"]:
        lines += ["", *_kinds(row), "", *_longest(row, longest)]
    return "\n".join(lines)


def _kinds(row: dict[str, Any]) -> list[str]:
    """The kinds, by their time."""
    kinds: dict[str, list[float]] = {}
    for kernel in row["kernels"]:
        times = kinds.setdefault(kind_of(kernel["name"]), [0.0, 0.0])
        times[0] += kernel["microseconds"] / 1000
        times[1] += kernel["launches"]
    whole, launches = (sum(times[i] for times in kinds.values()) for i in (0, 1))
    ordered = sorted(kinds.items(), key=lambda pair: -pair[1][0])
    return [
        f"| {row['way']}: {row['milliseconds']:.3f} ms an iteration | ms | launches |",
        "|---|---:|---:|",
        *(f"| {kind} | {ms:.3f} | {n:,.0f} |" for kind, (ms, n) in ordered),
        f"| **together** | **{whole:.3f}** | **{launches:,.0f}** |",
    ]


def _longest(row: dict[str, Any], longest: int) -> list[str]:
    return [
        "| the longest | us | launches |",
        "|---|---:|---:|",
        *(
            f"| `{kernel['name'][:100]}` | {kernel['microseconds']:,.1f} | {kernel['launches']:g} |"
            for kernel in row["kernels"][:longest]
        ),
    ]
