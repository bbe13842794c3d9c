"""The diagnosis of a run: findings about the four failures of GAN training, from its metrics.

It is a function of the metrics, in their order, and of facts about the run: fed with the same
ones again (a resumed run's history, a finished run's journal) it comes to the same findings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from gan_core.diagnostics import mode_collapse, non_convergence, overfitting, vanishing_gradient
from gan_core.diagnostics.findings import STATES, Advice, Facts, Finding, Sign, in_words, worst
from gan_core.diagnostics.history import History

Examine = Callable[[History, Facts], list[Sign]]

FAILURES: dict[str, tuple[Examine, tuple[Advice, ...]]] = {
    "mode_collapse": (mode_collapse.examine, mode_collapse.ADVICE),
    "vanishing_gradient": (vanishing_gradient.examine, vanishing_gradient.ADVICE),
    "non_convergence": (non_convergence.examine, non_convergence.ADVICE),
    "overfitting": (overfitting.examine, overfitting.ADVICE),
}
"""Each failure's examination and what to try against it."""

WARM_UPS = {
    "mode_collapse": mode_collapse.WARM_UP,
    "non_convergence": non_convergence.WARM_UP,
    "vanishing_gradient": mode_collapse.WARM_UP,
    "overfitting": mode_collapse.WARM_UP,
}
"""The share of a later stage in which nothing can be said of a failure: what was found in the stage
before stands until then."""
JUDGED_FROM = {
    "mode_collapse": mode_collapse.WARM_UP,
    "non_convergence": non_convergence.WARM_UP,
    "vanishing_gradient": 0.0,
    "overfitting": 0.0,
}
"""The share of any stage that must be played before all that tells of a failure is looked at."""
NEEDED = {"non_convergence": ("movement",)}
"""Metrics without which a failure cannot be said to be absent; else any that tells of it."""
CALM = 5
"""How many logging points or evaluations in a row must be better before a finding is taken back.
One that evaluations alone told is taken back by the next evaluation: that has seen as much."""

STOP_WORDS = {
    "collapse": "mode_collapse",
    "vanishing-gradient": "vanishing_gradient",
    "non-convergence": "non_convergence",
    "divergence": "divergence",
    "overfitting": "overfitting",
}
"""The words of ``--stop-on``, and the failure (or its form) that each means."""


class Diagnosis:
    """Findings from metrics as they come.

    Feed :meth:`take` with every logging point and evaluation; it returns the findings whose state
    has changed. A finding gets worse at once and better only when :data:`CALM` rows in a row were.
    ``past``: those that were confirmed once and are so no more, with ``until``.
    """

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.history = History()
        self.findings = {name: Finding(name) for name in FAILURES}
        self.past: list[Finding] = []
        self._signs: dict[str, list[Sign]] = {name: [] for name in FAILURES}
        self._held: dict[str, list[Sign]] = {name: [] for name in FAILURES}
        self._held_at = dict.fromkeys(FAILURES, 0)
        self._calm = dict.fromkeys(FAILURES, 0)

    def take(self, step: int, values: Mapping[str, float]) -> list[Finding]:
        """Add the metrics ``values`` (name to number) of iteration ``step``."""
        self.history.add(step, values)
        changed = []
        for name, (examine, _) in FAILURES.items():
            before = self.findings[name]
            self._signs[name] = examine(self.history, self.facts)
            after = self._revised(before, self._signs[name])
            self.findings[name] = after
            self._remember_past(before, after)
            if (after.state, after.form) != (before.state, before.form):
                changed.append(after)
        return changed

    def _remember_past(self, before: Finding, after: Finding) -> None:
        was, still = before.state == "confirmed", after.state == "confirmed"
        if was and not still:
            until = self._held_at[before.failure]
            self.past.append(dataclasses.replace(before, until=until, advice=()))
        if still and not was:  # what was only suspected for a while is not over
            same = (after.failure, after.since)
            self.past = [past for past in self.past if (past.failure, past.since) != same]

    @property
    def verdicts(self) -> dict[str, Finding]:
        """The findings, but unknown where nothing was found that could have been."""
        return {name: self._verdict(finding) for name, finding in self.findings.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the verdict on each failure, and under ``past`` what it once was."""
        return {
            name: finding.to_dict()
            | {"past": [past.to_dict() for past in self.past if past.failure == name]}
            for name, finding in self.verdicts.items()
        }

    def _verdict(self, finding: Finding) -> Finding:
        name, history = finding.failure, self.history
        if finding.state != "none":
            return finding
        share, steps = JUDGED_FROM[name], self.facts.steps
        if history.younger_than(share, steps):
            why = f"it is looked for from iteration {history.grown_at(share, steps):,} on"
            return Finding(name, "unknown", evidence=why)
        needed = NEEDED.get(name)
        told = [s for s in self._signs[name] if needed is None or s.metric in needed]
        if any(sign.known for sign in told):
            return finding
        why = f"too little was measured, at {history.points} logging points"
        return Finding(name, "unknown", evidence=why)

    def replay(self, rows: Iterable[Mapping[str, float]]) -> None:
        """Take rows that hold their ``step`` beside the values, as a run's history has them."""
        for row in rows:
            self.take(int(row["step"]), {n: v for n, v in row.items() if n != "step"})

    def _revised(self, before: Finding, signs: list[Sign]) -> Finding:
        """The finding ``before``, in the light of what is seen now."""
        name, level, was = before.failure, worst(signs), STATES.index(before.state)
        if level < was and not self._is_over(name, signs):
            return before
        self._calm[name] = 0
        if level == 0:
            return Finding(name)
        if level >= was or before.state != "confirmed":
            self._held_at[name] = self.history.step
        self._held[name] = [sign for sign in signs if sign.level == level]
        strongest = [sign.form for sign in self._held[name] if sign.form]
        special = [advice for sign in signs if sign.level > 0 for advice in sign.advice]
        advice = [a.words for a in (*special, *FAILURES[name][1]) if a.applies(self.facts.options)]
        return Finding(
            name,
            STATES[level],
            self.history.step if before.since is None else before.since,
            in_words(signs),
            strongest[0] if strongest else "",
            tuple(dict.fromkeys(advice)),
            self._confirmed_since(before, level),
        )

    def _is_over(self, name: str, signs: list[Sign]) -> bool:
        """Whether what is seen now, less than was found, takes the finding back."""
        if self._too_young(name):
            return False
        untold = {sign.metric for sign in signs if not sign.known}
        of_this_stage = self._held_at[name] > self.history.began
        if of_this_stage and any(sign.metric in untold for sign in self._held[name]):
            return False  # what is not a number any more has not become better
        self._calm[name] += 1
        told_once = all(sign.evaluated for sign in self._held[name])
        return told_once or self._calm[name] >= CALM

    def _too_young(self, name: str) -> bool:
        """Whether a stage after the first is played, and too little of it to judge it."""
        history = self.history
        return history.began > 0 and history.younger_than(WARM_UPS[name], self.facts.steps)

    def _confirmed_since(self, before: Finding, level: int) -> int | None:
        if STATES[level] != "confirmed":
            return None
        known = before.confirmed_since
        return self.history.step if known is None else known

    def wants_stop(self, words: Sequence[str], patience: float = 0.0) -> Finding | None:
        """A confirmed finding that one of the ``--stop-on`` words means.

        It must have stood confirmed for the share ``patience`` of the run's iterations, all in one
        stage; divergence, from which nothing comes back, counts at once.
        """
        wanted = {STOP_WORDS[word] for word in words}
        for finding in self.findings.values():
            if finding.state != "confirmed" or not wanted & {finding.failure, finding.form}:
                continue
            if finding.form == "divergence":
                return finding
            if self._too_young(finding.failure):  # it is of the stage before
                continue
            since = max(finding.confirmed_since or 0, self.history.began)
            if self.history.step - since >= patience * self.facts.steps:
                return finding
        return None
