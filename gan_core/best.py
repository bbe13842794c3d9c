"""Which evaluation of a run is its best, by the tracked figure, and whether that has been lost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gan_core.judging import comparable, tracked_figure, tracked_protocol

Best = dict[str, Any]
"""``metric``, ``value``, ``step``, ``score`` (the lower, the better), ``protocol`` (how it was
measured, or ``None``), and ``doubled`` (a later value and its step) once that has been told."""


def best_of(
    figures: dict[str, float],
    protocol: Mapping[str, str],
    best_by: tuple[tuple[str, str], ...],
    own: str,
    step: int,
) -> Best | None:
    """What ``figures``, measured at ``step``, would be as the best; ``None`` if they cannot be.

    ``best_by`` and ``own``: the variant's own figures that decide, and its name.
    """
    found = tracked_figure(figures, best_by)
    if found is None or not math.isfinite(found[1]):
        return None
    metric, score = found
    how = tracked_protocol(metric, protocol, own)
    return {
        "metric": metric,
        "value": figures[metric],
        "step": step,
        "score": score,
        "protocol": how,
    }


def replaces(now: Best, best: Best | None, stage_start: int, stage_end: float) -> bool:
    """Whether ``now``, of a stage from ``stage_start`` to ``stage_end``, is to be the best.

    Not in the place of one of a later stage, which a run has had that goes on from before it.
    """
    if best is None:
        return True
    if best["step"] > stage_end:
        return False
    return not _compares(best, now, stage_start) or now["score"] < best["score"]


def _compares(best: Best, now: Best, stage_start: int) -> bool:
    """Whether the score of ``now`` compares with that of ``best``.

    One that is not finite does not, nor do those of another metric or protocol (resumed with
    another extractor, or other ``--samples``), nor those of an earlier stage: that may pursue
    nothing but this figure (PSNR), and the last stage is the aim.
    """
    if not math.isfinite(best["score"]):  # as earlier versions kept it
        return False
    was, how = best.get("protocol"), now["protocol"]  # those of earlier versions do not say
    metric = now["metric"]
    alike = was is None or how is None or comparable(metric, was) == comparable(metric, how)
    return bool(best["metric"] == metric and alike and best["step"] > stage_start)


def note_doubled(best: Best, now: Best) -> str | None:
    """A line, once, when a figure of which low is good is twice its ``best`` or more.

    Not before that: a run that goes on from an older checkpoint may have its best still to come.
    """
    lost = best["step"] < now["step"] and 0 < 2 * best["score"] <= now["score"]
    if "doubled" in best or not lost:
        return None
    best["doubled"] = {"value": now["value"], "step": now["step"]}
    return (
        f"{now['metric']} {now['value']:.4g} at step {now['step']:,} is twice its best or more: "
        f"{best['value']:.4g} at step {best['step']:,}"
    )
