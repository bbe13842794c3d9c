"""From metrics to findings: when they begin, get worse, and are taken back."""

from __future__ import annotations

import math

import pytest

from gan_core.config import make_config
from gan_core.diagnostics.diagnosis import CALM, FAILURES, STOP_WORDS, Diagnosis
from gan_core.diagnostics.findings import Facts, Finding, Sign, Threshold, in_words
from gan_core.diagnostics.history import BEGUN, LENGTH
from gan_core.errors import UserError

FACTS = Facts(modes=10, steps=100, options={"loss": "minimax", "r1": 0.0, "ema": 0.9})
NAN = {"loss/generator": math.nan, "loss/discriminator": 1.0}
FINE = {"loss/generator": 1.0, "loss/discriminator": 1.0}


def test_a_threshold_is_beyond_its_bounds_in_its_direction() -> None:
    low, high = Threshold(0.5, 0.2), Threshold(2.0, 3.0)
    assert [low.level(v) for v in (0.6, 0.5, 0.4, 0.2, 0.1, -math.inf)] == [0, 0, 1, 1, 2, 2]
    assert [high.level(v) for v in (1.0, 2.0, 2.5, 3.0, 4.0, math.inf)] == [0, 0, 1, 1, 2, 2]
    assert low.level(math.nan) == high.level(math.nan) == 0


def test_evidence_names_the_strongest_signs_first_and_no_harmless_ones() -> None:
    assert in_words([Sign(1, "poor"), Sign(0, "fine"), Sign(2, "dead")]) == "dead; poor"
    assert in_words([Sign(0, "fine")]) == ""


def test_without_metrics_there_is_no_failure() -> None:
    diagnosis = Diagnosis(FACTS)
    assert {f.state for f in diagnosis.findings.values()} == {"none"}
    assert diagnosis.take(1, {}) == []
    assert diagnosis.take(50, FINE) == []


def test_a_number_that_is_none_is_divergence_at_once() -> None:
    diagnosis = Diagnosis(FACTS)
    diagnosis.take(10, FINE)
    (found,) = diagnosis.take(20, NAN)
    assert (found.failure, found.state, found.form) == (
        "non_convergence",
        "confirmed",
        "divergence",
    )
    assert found.since == 20
    assert "loss/generator" in found.evidence
    assert "loss/discriminator" not in found.evidence
    assert diagnosis.take(30, NAN) == []  # told once
    assert diagnosis.findings["non_convergence"].since == 20


def test_a_finding_is_taken_back_only_after_a_calm() -> None:
    diagnosis = Diagnosis(FACTS)
    diagnosis.take(1, NAN)
    for step in range(2, 1 + CALM):
        assert diagnosis.take(step, FINE) == []
    (over,) = diagnosis.take(1 + CALM, FINE)
    assert over == Finding("non_convergence")


def test_what_an_evaluation_alone_has_told_is_over_with_the_next_one() -> None:
    diagnosis = Diagnosis(FACTS)
    diagnosis.take(50, {"modes_covered": 10.0, "least_mode_ratio": 0.1})
    for step in range(51, 60):  # logging points say nothing of it
        assert diagnosis.take(step, {"diversity": 1.0}) == []
    (better,) = diagnosis.take(60, {"modes_covered": 10.0, "least_mode_ratio": 0.2})
    assert (better.state, better.since) == ("suspected", 50)
    (over,) = diagnosis.take(70, {"modes_covered": 10.0, "least_mode_ratio": 0.9})
    assert over.state == "none"
    (past,) = diagnosis.past
    assert (past.state, past.confirmed_since, past.until) == ("confirmed", 50, 59)
    assert "0.10 times" in past.line()


def test_a_finding_that_is_confirmed_again_is_not_past() -> None:
    diagnosis = Diagnosis(FACTS)
    states = {50: 0.1, 60: 0.2, 70: 0.1, 80: 0.9, 90: 0.1}
    past = {}
    for step, ratio in states.items():
        diagnosis.take(step, {"modes_covered": 10.0, "least_mode_ratio": ratio})
        past[step] = [(p.since, p.confirmed_since, p.until) for p in diagnosis.past]
    assert past == {50: [], 60: [(50, 50, 50)], 70: [], 80: [(50, 70, 70)], 90: [(50, 70, 70)]}
    assert diagnosis.findings["mode_collapse"].since == 90


def test_what_logging_points_have_told_too_wants_a_calm_after_an_evaluation() -> None:
    diagnosis = Diagnosis(FACTS)
    for step in range(50, 60):
        diagnosis.take(step, {"diversity": 0.1})
    diagnosis.take(60, {"modes_covered": 10.0, "least_mode_ratio": 0.1})
    diagnosis.take(61, {"diversity": 1.0})
    diagnosis.take(62, {"diversity": 0.1})
    assert diagnosis.take(63, {"least_mode_ratio": 0.9}) == []
    for step in range(64, 63 + CALM):
        assert diagnosis.take(step, {"diversity": 1.0}) == [], step
    (over,) = diagnosis.take(63 + CALM, {"diversity": 1.0})
    assert over.state == "none"


def test_what_is_not_a_number_any_more_takes_nothing_back() -> None:
    diagnosis = Diagnosis(FACTS)
    for step in range(50, 60):
        diagnosis.take(step, {"diversity": 0.1})
    for step in range(60, 90):
        diagnosis.take(step, {"diversity": math.nan, "least_mode_ratio": 0.9})
    assert diagnosis.findings["mode_collapse"].state == "confirmed"
    for step in range(90, 100):
        diagnosis.take(step, {"diversity": 1.0})
    assert diagnosis.findings["mode_collapse"].state == "none"


def test_what_a_stage_is_not_told_by_does_not_keep_the_finding_of_the_last_one() -> None:
    diagnosis = Diagnosis(Facts(steps=200))
    for step in range(1, 101):
        diagnosis.take(step, of_stage(0, 100, **{"loss/reconstruction": 1e4}))
    assert diagnosis.findings["non_convergence"].form == "divergence"
    for step in range(101, 201):
        diagnosis.take(step, of_stage(100, 100, **{"loss/generator": 1.0, "movement": 0.1}))
    assert diagnosis.findings["non_convergence"].state == "none"
    (past,) = diagnosis.past
    assert (past.form, past.confirmed_since, past.until) == ("divergence", 3, 100)


def test_against_divergence_smaller_steps_come_first() -> None:
    options = {"lr_g": 2e-4, "lr_d": None, "r1": 0.0}
    diagnosis = Diagnosis(Facts(steps=100, options=options))
    diagnosis.take(1, NAN)
    first, *others = diagnosis.findings["non_convergence"].advice
    assert first.startswith("a tenth of --lr-g and of --lr-d")
    assert first not in others
    assert any("--r1" in words for words in others)


def test_a_relapse_during_the_calm_is_the_same_finding() -> None:
    diagnosis = Diagnosis(FACTS)
    diagnosis.take(1, NAN)
    for step in range(2, 4 * CALM):
        assert diagnosis.take(step, NAN if step % (CALM - 1) == 0 else FINE) == []
    assert diagnosis.findings["non_convergence"].since == 1


def test_a_replay_comes_to_the_same_findings() -> None:
    rows = [{"step": float(s), "diversity": d} for s, d in enumerate([1, 0.9, 0.5, 0.4] * 9)]
    rows += [{"step": 40.0 + s, "diversity": 0.1, **(NAN if s > 5 else FINE)} for s in range(10)]
    once, again = Diagnosis(FACTS), Diagnosis(FACTS)
    for row in rows:
        once.take(int(row["step"]), {k: v for k, v in row.items() if k != "step"})
    again.replay(rows[:20])
    again.replay(rows[20:])
    assert once.findings == again.findings
    assert once.findings["mode_collapse"].state == "confirmed"


def test_advice_is_of_options_that_the_variant_has_and_does_not_use() -> None:
    diagnosis = Diagnosis(FACTS)
    diagnosis.take(1, NAN)
    advice = " ".join(diagnosis.findings["non_convergence"].advice)
    assert "--r1" in advice
    assert "--ema" not in advice  # in use
    assert "--beta1" not in advice  # unknown to the variant


@pytest.mark.parametrize(
    ("options", "advised"),
    [
        ({"beta1": 0.5}, "--beta1 0"),
        ({"beta1": 0.5, "optimizer": "adam", "momentum": 0.5}, "--beta1 0"),
        ({"beta1": 0.5, "optimizer": "sgd", "momentum": 0.5}, "--momentum 0 --momentum-end 0"),
    ],
)
def test_advice_of_momentum_is_of_the_optimizer_that_plays(
    options: dict[str, object], advised: str
) -> None:
    diagnosis = Diagnosis(Facts(steps=100, options=options))
    diagnosis.take(1, NAN)
    found = diagnosis.findings["non_convergence"].advice
    assert found == (f"{advised}: momentum feeds oscillation",)


def test_every_word_of_stop_on_means_a_failure() -> None:
    assert set(STOP_WORDS.values()) == {*FAILURES, "divergence"}
    diagnosis = Diagnosis(FACTS)
    diagnosis.take(1, NAN)
    for word in STOP_WORDS:
        stops = diagnosis.wants_stop((word,)) is not None
        assert stops == (word in ("divergence", "non-convergence")), word
    assert diagnosis.wants_stop(()) is None


def test_a_finding_ends_a_run_once_it_has_stood_and_divergence_at_once() -> None:
    diagnosis, words = Diagnosis(FACTS), ("collapse", "divergence")
    for step in range(50, 80):
        diagnosis.take(step, {"diversity": 0.1})
        finding = diagnosis.findings["mode_collapse"]
        stood = finding.state == "confirmed" and step - (finding.since or 0) >= 10
        assert (diagnosis.wants_stop(words, 10 / FACTS.steps) is finding) == stood
    assert stood
    other = Diagnosis(FACTS)
    other.take(1, NAN)
    assert other.wants_stop(words, 1.0) is not None


def test_the_time_under_suspicion_is_not_that_of_the_patience() -> None:
    rows = [{"step": float(step), "diversity": 0.5} for step in range(20, 60)]
    rows += [{"step": float(step), "diversity": 0.1} for step in range(60, 90)]
    diagnosis, stops = Diagnosis(FACTS), []
    for row in rows:
        diagnosis.take(int(row["step"]), {"diversity": row["diversity"]})
        stops.append(diagnosis.wants_stop(("collapse",), 10 / FACTS.steps) is not None)
    found = diagnosis.findings["mode_collapse"]
    assert (found.since, found.confirmed_since) == (22, 61)  # medians of 3
    assert rows[stops.index(True)]["step"] == 71
    resumed = Diagnosis(FACTS)
    resumed.replay(rows[:45])
    resumed.replay(rows[45:])
    assert resumed.findings == diagnosis.findings


def test_a_finding_that_was_only_suspected_again_is_confirmed_anew() -> None:
    diagnosis = Diagnosis(FACTS)
    for step in range(20, 80):
        diagnosis.take(step, {"diversity": 0.5 if 30 <= step < 60 else 0.1})
    found = diagnosis.findings["mode_collapse"]
    assert (found.since, found.confirmed_since) == (22, 61)


def test_the_words_of_stop_on_are_checked() -> None:
    values = {"variant": "gan", "stop_on": "collapse,divergence"}
    assert make_config(values).stop_on == ("collapse", "divergence")
    assert make_config({"variant": "gan"}).stop_on == ()
    kept = make_config(make_config(values).to_dict())
    assert kept.stop_on == ("collapse", "divergence")
    with pytest.raises(UserError, match="did you mean 'collapse'"):
        make_config({"variant": "gan", "stop_on": "divergence,colapse"})


def of_stage(begun: int, length: int, **values: float) -> dict[str, float]:
    return {BEGUN: float(begun), LENGTH: float(length), **values}


def test_a_stage_s_fresh_networks_have_a_warm_up_of_their_own() -> None:
    facts = Facts(steps=1100)
    diagnosis = Diagnosis(facts)
    for step in range(10, 1000, 10):
        diagnosis.take(step, of_stage(0, 1000, diversity=1.0, movement=0.1, duality_gap=0.1))
    for step in range(1001, 1010):  # a tenth of the second stage, in which noise is all alike
        diagnosis.take(step, of_stage(1000, 100, diversity=0.01, movement=3.0, duality_gap=9.0))
        assert {f.state for f in diagnosis.findings.values()} == {"none"}, step
    diagnosis.take(1010, of_stage(1000, 100, diversity=0.01, movement=3.0))
    assert diagnosis.findings["mode_collapse"].state == "confirmed"
    assert diagnosis.findings["mode_collapse"].since == 1010
    assert diagnosis.findings["non_convergence"].state == "none"
    for step in range(1011, 1031):
        diagnosis.take(step, of_stage(1000, 100, diversity=0.01, movement=3.0))
    assert diagnosis.findings["non_convergence"].since == 1030


def test_a_stage_is_not_judged_by_what_the_last_one_left() -> None:
    diagnosis = Diagnosis(Facts(modes=10, steps=200))
    spoiled = {"grad_norm/generator_1": math.nan, "diversity": 0.1, "movement": 3.0}
    for step in range(10, 101, 10):
        diagnosis.take(step, of_stage(0, 100, **spoiled))
    diagnosis.take(100, {"modes_covered": 1.0, "least_mode_ratio": 0.0, "duality_gap": 9.0})
    assert diagnosis.findings["non_convergence"].state == "confirmed"
    # A finding that its stage has confirmed late has not stood in this one.
    diagnosis.take(105, of_stage(100, 100, diversity=0.1))
    assert diagnosis.wants_stop(("collapse",), 0.2) is None
    for step in range(110, 160, 5):
        diagnosis.take(step, of_stage(100, 100, diversity=1.0, movement=0.1))
    assert {f.state for f in diagnosis.findings.values()} == {"none"}


def test_what_a_stage_has_failed_by_stands_until_the_next_can_be_judged() -> None:
    diagnosis = Diagnosis(Facts(modes=10, steps=2000))
    said = []
    for step in range(10, 2001, 10):
        second = step > 1000
        found = diagnosis.take(
            step, of_stage(1000 if second else 0, 1000, diversity=0.9 if step > 1500 else 0.05)
        )
        said += [(step, f.state) for f in found if f.failure == "mode_collapse"]
        if 1000 < step < 1100:
            assert diagnosis.wants_stop(("collapse",)) is None, "it is of the stage before"
    # By the median it is better from 1,520 on, and five points in a row must be.
    assert said == [(100, "confirmed"), (1560, "none")]


def test_who_learns_without_an_opponent_is_not_said_to_have_collapsed() -> None:
    diagnosis = Diagnosis(Facts(modes=10, steps=2000, unopposed=frozenset({0})))
    said = []
    for step in range(100, 2001, 10):
        values = of_stage(1000 if step > 1000 else 0, 1000, diversity=0.05)
        said += [(step, f.failure) for f in diagnosis.take(step, values)]
    assert said == [(1100, "mode_collapse")]
    diagnosis = Diagnosis(Facts(modes=10, steps=1000, unopposed=frozenset({0})))
    diagnosis.take(500, {"loss/generator": math.nan, "diversity": 0.05})
    assert diagnosis.findings["non_convergence"].state == "confirmed", "but it can diverge"


def test_what_a_stage_has_not_measured_is_not_told_of_it() -> None:
    diagnosis = Diagnosis(Facts(modes=10, steps=2000))
    diagnosis.take(1000, of_stage(0, 1000, rotation=0.5))
    for step in range(1300, 1401, 10):
        diagnosis.take(step, of_stage(1000, 1000, movement=3.0))
    finding = diagnosis.findings["non_convergence"]
    assert finding.state == "confirmed"
    assert "rotation" not in finding.line()


def test_the_series_of_a_history_go_on_from_stage_to_stage() -> None:
    history = Diagnosis(Facts(steps=200)).history
    for step in (50, 100, 150):
        history.add(step, of_stage(100 if step > 100 else 0, 100, diversity=step / 100))
    assert history.values("diversity") == [0.5, 1.0, 1.5]
    assert history.recent("diversity", 3) == [1.5]
    assert math.isnan(history.median("diversity", 2))
