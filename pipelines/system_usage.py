"""How busy the machine is, under the names that MLflow's system metrics page knows."""

from __future__ import annotations

from contextlib import suppress
from types import ModuleType

import torch

MEGABYTE = 1e6


def _psutil() -> ModuleType | None:
    try:
        import psutil
    except ImportError:
        return None
    return psutil


class SystemUsage:
    """Reads CPU, memory, network and the GPU of one process's machine.

    Utilisation is the mean since the previous reading; memory in megabytes (10^6 bytes) and per
    cent. What cannot be read (no ``psutil``, no ``nvidia-ml-py``) is left out.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._psutil = _psutil()
        self._network = self._network_bytes()
        if self._psutil:
            self._psutil.cpu_percent(None)

    def read(self) -> dict[str, float]:
        """The present values by metric name; takes well under a millisecond on the CPU."""
        return {**self._machine(), **self._gpu()}

    def _network_bytes(self) -> tuple[int, int]:
        counters = self._psutil.net_io_counters() if self._psutil else None
        return (counters.bytes_recv, counters.bytes_sent) if counters else (0, 0)

    def _machine(self) -> dict[str, float]:
        if self._psutil is None:
            return {}
        memory = self._psutil.virtual_memory()
        received, sent = self._network_bytes()
        return {
            "system/cpu_utilization_percentage": float(self._psutil.cpu_percent(None)),
            "system/system_memory_usage_megabytes": memory.used / MEGABYTE,
            "system/system_memory_usage_percentage": float(memory.percent),
            "system/network_receive_megabytes": (received - self._network[0]) / MEGABYTE,
            "system/network_transmit_megabytes": (sent - self._network[1]) / MEGABYTE,
        }

    def _gpu(self) -> dict[str, float]:
        if self._device.type != "cuda":
            return {}
        free, total = torch.cuda.mem_get_info(self._device)
        name = f"system/gpu_{self._device.index or 0}"
        values = {
            f"{name}_memory_usage_megabytes": (total - free) / MEGABYTE,
            f"{name}_memory_usage_percentage": 100 * (total - free) / total,
        }
        # NVML has errors of its own kind, for instance where a slice of a GPU lacks a sensor.
        with suppress(Exception):
            values[f"{name}_utilization_percentage"] = float(torch.cuda.utilization(self._device))
        with suppress(Exception):
            values[f"{name}_power_usage_watts"] = torch.cuda.power_draw(self._device) / 1000
        return values
