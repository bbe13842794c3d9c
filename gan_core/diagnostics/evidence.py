"""A picture of the evidence: what each failure is told by, over the course of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gan_core.diagnostics import mode_collapse, non_convergence, overfitting, vanishing_gradient
from gan_core.diagnostics.findings import Finding, Threshold, called
from gan_core.diagnostics.history import History

PANELS: dict[str, tuple[tuple[str, str], ...]] = {
    "mode_collapse": (
        ("diversity", "diversity"),
        ("neighbour_distance", "distance to the nearest"),
        ("diversity_inverse", "diversity of the way back"),
        ("mode_spread", "spread of modes"),
        ("least_mode_ratio", "rarest mode"),
        ("recall", "recall"),
        ("vendi_ratio", "Vendi ratio"),
    ),
    "vanishing_gradient": (
        ("slope/generator", "slope at the logits"),
        ("slope/minimax", "minimax"),
        ("slope/non_saturating", "non-saturating"),
        ("grad_norm/generator", "norm of G's gradient"),
    ),
    "non_convergence": (
        ("movement", "movement of samples"),
        ("duality_gap", "size of the duality gap"),
        ("rotation", "rotation"),
        ("weight_norm/generator", "norm of G's weights"),
        ("weight_norm/discriminator", "norm of D's weights"),
    ),
    "overfitting": (
        ("overfitting/rv", "overfitting r_v"),
        ("accuracy/train", "D on training examples"),
        ("accuracy/held_out", "D on held-out examples"),
        ("copied_share", "share of copies"),
    ),
}
"""The metrics (without their extractor's suffix) and how they are called, for each failure."""
LIMITS: dict[str, Threshold] = {
    "diversity": mode_collapse.DIVERSITY,
    "neighbour_distance": mode_collapse.NEIGHBOURS,
    "least_mode_ratio": mode_collapse.LEAST_MODE,
    "slope/generator": vanishing_gradient.SLOPE,
    "movement": non_convergence.MOVEMENT,
    "duality_gap": non_convergence.GAP,
    "overfitting/rv": overfitting.LEARNT_BY_HEART,
    "copied_share": overfitting.COPIES,
}
"""Beyond which a metric confirms its failure: a dotted line of the metric's colour."""
OF_PICTURES = ("neighbour_distance",)
"""Told by them alone."""
REFERENCES = ("slope/minimax", "slope/non_saturating")
"""Drawn dashed: what a slope is compared with is often the slope itself."""
LOGARITHMIC = ("vanishing_gradient", "non_convergence")
COLOURS = {
    "none": "#2a7d46",
    "suspected": "#c77700",
    "confirmed": "#b3261e",
    "unknown": "#666666",
}


def _series(history: History, name: str) -> tuple[list[int], list[float]]:
    """The steps and finite values of ``name``, whatever its extractor."""
    names = history.names()
    found = [name] if name in names else [n for n in names if n.startswith(f"{name}_")]
    if not found:
        return [], []
    pairs = zip(history.steps(found[0]), history.values(found[0]), strict=True)
    finite = [(step, value) for step, value in pairs if math.isfinite(value)]
    return [s for s, _ in finite], [v for _, v in finite]


def evidence_picture(
    history: History,
    findings: Mapping[str, Finding],
    samples: Tensor | None = None,
    modes: int = 0,
    *,
    past: Sequence[Finding] = (),
    target: str = "image",
) -> Tensor:
    """A panel for each failure, shaded from where it began; uint8 (3, H, W).

    ``samples``: a picture of samples, uint8 (1 or 3, h, w), for a panel of its own; ``modes``: how
    many the data have; ``past``: failures that were confirmed once, hatched where they were;
    ``target``: what is learnt, of which pictures alone are judged by the nearest.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 2 if samples is None else 3
    figure = Figure(figsize=(5.2 * columns, 7), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, columns)
    for number, (failure, names) in enumerate(PANELS.items()):
        axes = figure.add_subplot(grid[number // 2, number % 2])
        drawn = [n for n in names if target == "image" or n[0] not in OF_PICTURES]
        _panel(axes, history, findings[failure], drawn, [p for p in past if p.failure == failure])
        if failure == "mode_collapse":
            _modes(axes, history, modes)
    if samples is not None:
        axes = figure.add_subplot(grid[:, 2])
        image = samples.permute(1, 2, 0).cpu().numpy()
        axes.imshow(image[:, :, 0] if image.shape[2] == 1 else image, cmap="gray")
        axes.set_title("samples", fontsize=10)
        axes.axis("off")
    canvas.draw()
    pixels = torch.frombuffer(bytearray(canvas.buffer_rgba()), dtype=torch.uint8)
    width, height = canvas.get_width_height()
    return pixels.reshape(height, width, 4)[:, :, :3].permute(2, 0, 1).contiguous()


def _panel(
    axes: Any,
    history: History,
    finding: Finding,
    names: Sequence[tuple[str, str]],
    past: Sequence[Finding],
) -> None:
    drawn: list[float] = []
    for name, label in names:
        steps, values = _series(history, name)
        if steps:
            if finding.failure in LOGARITHMIC:  # of a gap the size is judged
                values = [abs(value) for value in values]
            style: dict[str, Any] = {"marker": "o", "markersize": 3} if len(steps) < 12 else {}
            if name in REFERENCES:  # may lie exactly on what they are compared with
                style["linestyle"] = "--"
            (line,) = axes.plot(steps, values, label=label, linewidth=1.3, **style)
            if name in LIMITS:
                bound = LIMITS[name].confirmed
                axes.axhline(bound, color=line.get_color(), linestyle=":", linewidth=1)
            drawn += values
    positive = [value for value in drawn if value > 0]
    if finding.failure in LOGARITHMIC and positive:
        if 0 in drawn:  # the worst that there is belongs into the picture
            axes.set_yscale("symlog", linthresh=min(positive), linscale=0.3)
        else:
            axes.set_yscale("log")
    if finding.since is not None:
        axes.axvspan(finding.since, history.step, color=COLOURS[finding.state], alpha=0.10)
    for once in past:
        span: Any = (once.confirmed_since, once.until)
        axes.axvspan(*span, color=COLOURS["confirmed"], alpha=0.15, hatch="//", fill=False)
    state = finding.state
    title = f"{called(finding.form or finding.failure)}: {state}"
    if finding.since is not None:
        title += f", since iteration {finding.since:,}"
    elif state == "unknown":
        title += f", {finding.evidence}"
    if past:
        title += " (hatched: confirmed once)"
    axes.set_title(title, fontsize=10, color=COLOURS[state])
    axes.set_xlabel("iteration", fontsize=8)
    axes.tick_params(labelsize=8)
    if drawn:
        if any(name in LIMITS for name, _ in names):
            axes.plot([], [], "k:", linewidth=1, label="confirmed beyond")
        axes.legend(fontsize=7)


def _modes(axes: Any, history: History, modes: int) -> None:
    """The share of the data's modes beside the other ratios, of which 1 is the best."""
    steps, values = _series(history, "modes_covered")
    if steps and modes:
        shares = [value / modes for value in values]
        axes.plot(steps, shares, "ks-", markersize=3, label=f"share of {modes} modes")
        axes.legend(fontsize=7)
    seen = [y for line in axes.get_lines() for y in line.get_ydata()]
    axes.set_ylim(0, max(1.6, 1.05 * max(seen, default=0)))
