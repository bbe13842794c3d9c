"""A trial without Ray: what it reports, keeps and says, with a stand-in for Tune."""

from __future__ import annotations

import dataclasses
import errno
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gan_core import journal
from gan_core.config import make_config
from gan_core.errors import UserError
from gan_core.variant import VARIANTS
from pipelines.full_disk import DiskFull
from pipelines.tuning import records
from pipelines.tuning import trial as module
from pipelines.tuning.driver import SearchBoard
from pipelines.tuning.objective import WORST
from pipelines.tuning.records import read_trial, read_trials
from pipelines.tuning.study import Study, TuneOptions
from pipelines.tuning.table import Table

FOLDER = "trial_0001"


class Stopped(BaseException):
    """As Tune ends the thread of a trial that it has stopped: at its next report."""


class FakeTune:
    """What a trial uses of ``ray.tune``. ``stop_at``: the step whose report ends the trial, unless
    it is the last; ``stop_on``: or what is in that report.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.trial = root, FOLDER
        self.reports: list[dict[str, Any]] = []
        self.saved: list[Path] = []
        self.start_from: Path | None = None
        self.stop_at: int | None = None
        self.stop_on = ""
        self.Checkpoint = SimpleNamespace(from_directory=Path)

    def get_context(self) -> Any:
        return SimpleNamespace(get_trial_dir=lambda: f"/elsewhere/{self.trial}")

    def get_checkpoint(self) -> Any:
        if self.start_from is None:
            return None

        @contextmanager
        def as_directory() -> Iterator[str]:
            yield str(self.start_from)

        return SimpleNamespace(as_directory=as_directory)

    def report(self, metrics: dict[str, Any], checkpoint: Path | None = None) -> None:
        self.reports.append(metrics)
        if checkpoint is not None:
            kept = self.root / f"saved_{len(self.saved)}"
            shutil.copytree(checkpoint, kept)
            self.saved.append(kept)
        at_step = metrics["step"] == self.stop_at and not metrics.get("ended")
        if at_step or self.stop_on in metrics:
            raise Stopped


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeTune:
    found = FakeTune(tmp_path)
    monkeypatch.setattr(module, "tune", found)
    return found


def make(storage: Path, name: str = "search", scheduler: str = "asha", **options: Any) -> Study:
    """A study of gan on the ring: 60 iterations, judged every 20."""
    values = {
        "variant": "gan", "data": "ring", "storage": str(storage), "name": name, "steps": 60,
        "evaluate_every": 20, "checkpoint_every": 20, "log_every": 10, "samples": 100,
        "hidden": 8, "maxout_units": 4, "batch_size": 16, **options,
    }  # fmt: skip
    words = TuneOptions(metric="mixture_score", scheduler=scheduler)
    study = Study(run=make_config(values), options=words, target="point", modes=8)
    study.save()
    return study


def networks(folder: Path) -> Any:
    return torch.load(folder / "state.pt", weights_only=True)["game"]["networks"]


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_a_trial_reports_every_evaluation_with_a_checkpoint(tmp_path: Path, fake: FakeTune) -> None:
    study = make(tmp_path)
    module.play_trial(study, {"k": 2, "lr_d": 0.001})
    assert [r["step"] for r in fake.reports] == [20, 40, 60]
    assert all(r["objective"] == study.objective(r) for r in fake.reports)
    assert len(fake.saved) == 3
    trial = read_trial(study.folder / FOLDER, study)
    assert (trial.status, trial.progress, trial.step) == ("finished", 60, 39), "k = 2: two thirds"
    assert trial.objective == fake.reports[-1]["objective"]
    assert (trial.point["k"], trial.point["lr_d"]) == (2, 0.001)
    assert trial.grid is not None
    assert trial.grid.is_file()


def test_a_trial_on_a_node_without_the_storage_says_so(tmp_path: Path, fake: FakeTune) -> None:
    study = make(tmp_path)
    shutil.rmtree(study.folder)
    with pytest.raises(UserError, match="is not the same folder on node"):
        module.play_trial(study, {"k": 2})
    assert not fake.reports, "the search would learn from what nobody sees"
    assert not study.folder.exists()


@pytest.mark.parametrize("damage", ["gone", "truncated"])
def test_a_trial_whose_checkpoint_is_lost_goes_on_from_the_newest_beside_it(
    tmp_path: Path, fake: FakeTune, damage: str
) -> None:
    """Tune's notes of a killed search can name one that was removed since."""
    fake.stop_at = 40
    with pytest.raises(Stopped):
        module.play_trial(make(tmp_path), {"k": 2})
    kept = [tmp_path / f"checkpoint_00000{number}" for number in range(3)]
    shutil.copytree(fake.saved[0], kept[0])
    shutil.copytree(fake.saved[1], kept[2])
    if damage == "truncated":
        shutil.copytree(fake.saved[0], kept[1])
        (kept[1] / "state.pt").write_bytes(b"")
    fake.reports.clear()
    fake.start_from, fake.stop_at = kept[1], None
    module.play_trial(make(tmp_path), {"k": 2})
    assert [report["step"] for report in fake.reports] == [60]
    assert read_trial(make(tmp_path).folder / FOLDER, make(tmp_path)).status == "finished"


@pytest.mark.parametrize(("scheduler", "again"), [("asha", [60]), ("pbt", [20, 40, 60])])
def test_a_trial_whose_first_checkpoint_was_not_noted_goes_on_from_it_but_in_a_population(
    tmp_path: Path, fake: FakeTune, scheduler: str, again: list[int]
) -> None:
    """A search that is stopped while its trials report forgets what they say."""
    study = make(tmp_path, scheduler=scheduler)
    fake.stop_at = 40
    with pytest.raises(Stopped):
        module.play_trial(study, {"k": 2})
    for number, saved in enumerate(fake.saved):
        shutil.copytree(saved, study.folder / FOLDER / f"checkpoint_00000{number}")
    fake.reports.clear()
    fake.start_from = fake.stop_at = None
    module.play_trial(study, {"k": 2})
    assert [report["step"] for report in fake.reports] == again
    alone = make(tmp_path, "alone", scheduler=scheduler)
    module.play_trial(alone, {"k": 2})
    trials = [read_trial(s.folder / FOLDER, s) for s in (study, alone)]
    assert trials[0].objective == trials[1].objective


def test_a_trial_whose_checkpoints_are_all_lost_begins_anew(tmp_path: Path, fake: FakeTune) -> None:
    fake.start_from = tmp_path / "checkpoint_000003"
    module.play_trial(make(tmp_path), {"k": 2})
    assert [report["step"] for report in fake.reports] == [20, 40, 60]


PLUGIN = """
from gan_core.variant import register
from gan_core.variants.gan import GAN

@register("brought")
class Brought(GAN):
    pass
"""


def test_a_trial_of_a_plugins_variant_goes_on_in_a_process_of_its_own(
    tmp_path: Path, fake: FakeTune, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "brings_a_variant.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)

    def forget() -> None:
        VARIANTS._entries.pop("brought", None)
        sys.modules.pop("brings_a_variant", None)
        records._names.cache_clear()

    study = make(tmp_path, variant="brought", plugins=["brings_a_variant"])
    try:
        fake.stop_at = 40
        with pytest.raises(Stopped):
            module.play_trial(study, {"k": 2})
        forget()
        fake.start_from, fake.stop_at = fake.saved[-1], None
        module.play_trial(study, {"k": 2})
        assert [report["step"] for report in fake.reports] == [20, 40, 60]
    finally:
        forget()


def test_a_trial_goes_on_from_its_checkpoint_bit_for_bit(tmp_path: Path, fake: FakeTune) -> None:
    whole = make(tmp_path, "whole")
    module.play_trial(whole, {"k": 2})
    last = fake.saved[-1]
    fake.saved.clear()
    fake.root = tmp_path / "again"
    fake.stop_at = 40
    with pytest.raises(Stopped):
        module.play_trial(make(tmp_path), {"k": 2})
    fake.start_from, fake.stop_at = fake.saved[-1], None
    module.play_trial(make(tmp_path), {"k": 2})
    assert equal(networks(fake.saved[-1]), networks(last))
    one, other = (
        read_trial(make(tmp_path, name).folder / FOLDER, whole) for name in ("whole", "search")
    )
    assert one.curve == other.curve


def test_a_copy_has_the_others_state_and_plays_by_its_own_point(
    tmp_path: Path, fake: FakeTune
) -> None:
    study = make(tmp_path, scheduler="pbt")
    fake.stop_at = 20
    with pytest.raises(Stopped):
        module.play_trial(make(tmp_path, "other", scheduler="pbt", seed=7), {"k": 1, "lr_d": 0.001})
    fake.start_from, fake.stop_at = fake.saved[-1], None
    module.play_trial(study, {"k": 3, "lr_d": 0.01})
    copied = torch.load(fake.saved[1] / "state.pt", weights_only=True)["game"]
    assert copied["step"] == 40
    updates = {name: player["updates"] for name, player in copied["players"].items()}
    assert updates == {"discriminator": 20 + 3 * 20, "generator": 40}
    rate = copied["players"]["discriminator"]["optimizer"]["param_groups"][0]["lr"]
    assert float(rate) == pytest.approx(0.01, rel=1e-3)


def test_the_record_of_a_trial_that_took_over_anothers_state_is_of_what_it_played_then(
    tmp_path: Path, fake: FakeTune
) -> None:
    study = make(tmp_path, scheduler="pbt")
    fake.stop_at, fake.trial = 20, "trial_0002"
    with pytest.raises(Stopped):
        module.play_trial(study, {"k": 1, "lr_d": 0.001})
    better = fake.saved[-1]
    fake.stop_at, fake.trial = 40, FOLDER
    with pytest.raises(Stopped):
        module.play_trial(study, {"k": 2, "lr_d": 0.002})
    folder = study.folder / FOLDER
    before = read_trial(folder, study)
    fake.start_from = better
    with pytest.raises(Stopped):  # its process is lost, and it is begun again
        module.play_trial(study, {"k": 1, "lr_d": 0.0012})
    fake.stop_at = None
    module.play_trial(study, {"k": 1, "lr_d": 0.0012})
    events = [event for event, _ in journal.read(folder / journal.FILE)]
    rewinds = [(e["step"], e["source"], e["point"]) for e in events if e["kind"] == "rewind"]
    assert rewinds == [(20, "trial_0002", {"k": 1, "lr_d": 0.0012})]
    noted = [(e["step"], e["values"]) for e in events if "searched/lr_d" in e.get("values", {})]
    assert noted == [
        (0, {"searched/k": 2.0, "searched/lr_d": 0.002}),
        (20, {"searched/k": 1.0, "searched/lr_d": 0.0012}),
    ]
    after = read_trial(folder, study)
    assert [step for step, _ in before.curve] == [20, 40]
    assert [step for step, _ in after.curve] == [40, 60]
    assert after.point["lr_d"] == 0.0012
    for (step, figures), report in zip(after.curve, fake.reports[-2:], strict=True):
        assert report["step"] == step
        told = {name: value for name, value in report.items() if name in figures}
        assert "mode_kl" in told
        assert told.items() <= figures.items(), "of what it played last"


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_searched_is_noted_where_it_begins_to_be_played(
    tmp_path: Path, fake: FakeTune, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    def played(*_: object) -> dict[str, Any]:
        return {"stopped_by": None}

    study = make(tmp_path)
    fake.stop_at = 20
    with pytest.raises(Stopped):
        module.play_trial(make(tmp_path, "other"), {"k": 1})
    fake.start_from, fake.stop_at = fake.saved[-1], None
    options = dataclasses.replace(study.options, workers_per_trial=workers)
    monkeypatch.setattr("pipelines.tuning.workers.play_on_workers", played)
    module.play_trial(dataclasses.replace(study, options=options), {"k": 3, "loss": "hinge"})
    events = [event for event, _ in journal.read(study.folder / FOLDER / journal.FILE)]
    noted = [(e["step"], e["values"]) for e in events if "searched/k" in e.get("values", {})]
    assert noted == [(20, {"searched/k": 3.0})]
    tags = [(e["name"], e["value"]) for e in events if "searched" in str(e.get("name"))]
    assert tags == [("searched.loss", "hinge")]


def test_a_trial_that_has_ended_only_says_so_again(tmp_path: Path, fake: FakeTune) -> None:
    study = make(tmp_path)
    module.play_trial(study, {"k": 1})
    before = (study.folder / FOLDER / "journal.jsonl").read_text()
    first = fake.reports[-1]
    fake.reports.clear()
    module.play_trial(study, {"k": 1})
    (again,) = fake.reports
    assert (again["step"], again["objective"]) == (first["step"], first["objective"])
    assert again["ended"]
    assert (study.folder / FOLDER / "journal.jsonl").read_text() == before


def test_an_error_is_the_trials_own_and_its_trace_is_kept(tmp_path: Path, fake: FakeTune) -> None:
    study = make(tmp_path)
    module.play_trial(study, {"k": 0})
    (report,) = fake.reports
    assert report == {"step": 60, "objective": WORST, "ended": True}
    trial = read_trial(study.folder / FOLDER, study)
    assert (trial.status, trial.reason) == ("failed", "--k must be at least 1, not 0")
    trace = (study.folder / FOLDER / "failure.txt").read_text()
    assert "Traceback" in trace
    assert "--k must be at least 1" in trace


def test_a_lost_worker_is_no_failure_of_the_trial_but_of_its_process(
    tmp_path: Path, fake: FakeTune, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(workers: tuple[str, ...], *_: object) -> None:
        raise module.WorkerLost(workers[1])

    study = make(tmp_path)
    monkeypatch.setattr("pipelines.tuning.shared_workers.play_on_shared_worker", lost)
    with pytest.raises(module.WorkerLost, match="worker-1"):
        module.play_trial(study, {"k": 1}, ("worker-0", "worker-1"))
    assert fake.reports == []
    assert read_trial(study.folder / FOLDER, study).status == "open"


def test_a_full_disk_ends_the_search_and_leaves_the_trial_to_be_played_on(
    tmp_path: Path, fake: FakeTune, monkeypatch: pytest.MonkeyPatch
) -> None:
    def play(*_: object) -> dict[str, Any]:
        raise OSError(errno.ENOSPC, "No space left on device")

    study = make(tmp_path)
    monkeypatch.setattr(module, "play", play)
    module.play_trial(study, {"k": 1})
    (report,) = fake.reports
    full = "[Errno 28] No space left on device"
    assert report == {"step": 0, "objective": WORST, "disk_full": full}
    assert read_trial(study.folder / FOLDER, study).status == "open"
    assert not (study.folder / FOLDER / "failure.txt").exists()
    board = SearchBoard(study, Table("fid", 1, 60))
    with pytest.raises(DiskFull, match=r"^trial_0001: .*No space left on device$"):
        board.reported(FOLDER, report)


def test_a_metric_that_does_not_exist_fails_the_trial_in_a_line(
    tmp_path: Path, fake: FakeTune
) -> None:
    study = make(tmp_path)
    study = dataclasses.replace(study, options=TuneOptions(metric="modes_cover"))
    module.play_trial(study, {})
    (trial,) = read_trials(study)
    assert "did you mean 'modes_covered'" in trial.reason


def test_a_trial_that_diverges_is_stopped_and_counts_as_the_worst(
    tmp_path: Path, fake: FakeTune
) -> None:
    study = make(tmp_path, stop_on="divergence", log_every=1)
    module.play_trial(study, {"lr_d": 1e25, "lr_g": 1e25})
    trial = read_trial(study.folder / FOLDER, study)
    assert trial.status == "stopped"
    assert trial.verdict == "non_convergence"
    assert trial.progress < 60
    assert trial.reason
    assert fake.reports[-1]["objective"] == WORST == trial.objective
    assert all(r["objective"] < WORST for r in fake.reports[:-1])
    assert fake.reports[-1]["ended"], "said once, and without the figures from before it failed"
    events = [event for event, _ in journal.read(study.folder / FOLDER / journal.FILE)]
    assert [e["kind"] for e in events if e["kind"] in ("tag", "end")][-1] == "end"


def test_a_trial_that_is_stopped_at_a_rung_is_not_paused_there(
    tmp_path: Path, fake: FakeTune
) -> None:
    fake.stop_at = 20  # what Tune does at a rung, to a report that is not the last
    study = make(tmp_path, stop_on="divergence", log_every=20)
    module.play_trial(study, {"lr_d": 1e25, "lr_g": 1e25})
    (report,) = fake.reports
    assert (report["step"], report["objective"], report["ended"]) == (20, WORST, True)
    assert read_trial(study.folder / FOLDER, study).verdict == "non_convergence"


def test_a_member_of_a_population_that_is_stopped_goes_on_from_another_or_ends(
    tmp_path: Path, fake: FakeTune
) -> None:
    study = make(tmp_path, scheduler="pbt", stop_on="divergence", log_every=1)
    fake.stop_at, fake.trial = 40, "trial_0002"
    with pytest.raises(Stopped):
        module.play_trial(study, {"k": 1, "lr_d": 0.001, "loss": "hinge"})
    better = fake.saved[-1]
    fake.trial, fake.stop_on = FOLDER, "diagnosed"
    with pytest.raises(Stopped):  # the scheduler gives it the better one's state
        module.play_trial(study, {"k": 1, "lr_d": 1e25, "lr_g": 1e25, "loss": "minimax"})
    folder = study.folder / FOLDER
    assert fake.reports[-1]["objective"] == WORST
    assert not read_trial(folder, study).ended, "MLflow would hear no more of it"
    fake.start_from, fake.stop_at, fake.stop_on = better, None, ""
    module.play_trial(study, {"k": 1, "lr_d": 0.0012, "loss": "hinge"})
    after = read_trial(folder, study)
    assert (after.status, after.verdict, after.progress) == ("finished", "", 60)
    said = [event for event, _ in journal.read(folder / journal.FILE) if event["kind"] == "tag"]
    tags = {event["name"]: event["value"] for event in said}
    assert tags["stopped_by"] == "nothing: it went on"
    assert tags["went_on_from"] == "trial_0002 at step 40"
    assert tags["searched.loss"] == "hinge"

    alone = dataclasses.replace(study, run=dataclasses.replace(study.run, name="alone"))
    alone.save()
    fake.start_from = None
    module.play_trial(alone, {"lr_d": 1e25, "lr_g": 1e25})
    assert [sorted(r.keys() & {"diagnosed", "ended"}) for r in fake.reports[-2:]] == [
        ["diagnosed"],
        ["ended"],
    ]
    assert read_trial(alone.folder / FOLDER, alone).verdict == "non_convergence"
