"""The diagnosis of a run: findings about the four failures of GAN training, from its metrics.

It is a function of the metrics, in their order, and of facts about the run: fed with the same
ones again (a resumed run's history, a finished run's journal) it comes to the same findings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

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
CALM = 5
"""How many logging points or evaluations in a row must be better before a finding is taken back."""

STOP_WORDS = {
    "collapse": "mode_collapse",
    "vanishing-gradient": "vanishing_gradient",
    "non-convergence": "non_convergence",
    "divergence": "divergence",
    "overfitting": "overfitting",
}
"""The words of ``--stop-on``, and the failure (or its form) that each means."""


FEWEST_POINTS = 3
"""Logging points that the shortest windows take: of fewer nothing can be called healthy."""


class Diagnosis:
    """Findings from metrics as they come.

    Feed :meth:`take` with every logging point and evaluation; it returns the findings whose state
    has changed. A finding gets worse at once and better only when :data:`CALM` rows in a row were.
    """

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.history = History()
        self.findings = {name: Finding(name) for name in FAILURES}
        self._calm = dict.fromkeys(FAILURES, 0)

    def take(self, step: int, values: Mapping[str, float]) -> list[Finding]:
        """Add the metrics ``values`` (name to number) of iteration ``step``."""
        self.history.add(step, values)
        changed = []
        for name, (examine, _) in FAILURES.items():
            before = self.findings[name]
            self.findings[name] = self._revised(before, examine(self.history, self.facts))
            after = self.findings[name]
            if (after.state, after.form) != (before.state, before.form):
                changed.append(after)
        return changed

    @property
    def too_short(self) -> bool:
        """Whether there are too few points to tell what has not failed."""
        return self.history.points < FEWEST_POINTS

    def replay(self, rows: Iterable[Mapping[str, float]]) -> None:
        """Take rows that hold their ``step`` beside the values, as a run's history has them."""
        for row in rows:
            self.take(int(row["step"]), {n: v for n, v in row.items() if n != "step"})

    def _revised(self, before: Finding, signs: list[Sign]) -> Finding:
        """The finding ``before``, in the light of what is seen now."""
        name, level, was = before.failure, worst(signs), STATES.index(before.state)
        if level < was:
            if self._too_young(name):
                return before
            self._calm[name] += 1
            if self._calm[name] < CALM:
                return before
        self._calm[name] = 0
        if level == 0:
            return Finding(name)
        strongest = [sign.form for sign in signs if sign.level == level and sign.form]
        advice = [a.words for a in FAILURES[name][1] if a.applies(self.facts.options)]
        return Finding(
            name,
            STATES[level],
            self.history.step if before.since is None else before.since,
            in_words(signs),
            strongest[0] if strongest else "",
            tuple(advice),
            self._confirmed_since(before, level),
        )

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
