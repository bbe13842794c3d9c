"""A search in MLflow: a parent, its children, nothing lost, nothing twice."""

from __future__ import annotations

import dataclasses
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from test_tuning import make_study, write_trial

from gan_core import journal
from gan_core.journal import Journal
from pipelines.models import Logged
from pipelines.run_folder import append
from pipelines.sync import sync
from pipelines.tracking import State
from pipelines.tuning.champion import ALIAS, NotRegistered, crown
from pipelines.tuning.family import Family, forget_lost_trials
from pipelines.tuning.objective import Objective
from pipelines.tuning.study import Study


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests: making it takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('tracking') / 'mlflow.db'}"


@pytest.fixture
def study(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study in an experiment of its own."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    found = make_study(tmp_path)
    found = dataclasses.replace(found, run=dataclasses.replace(found.run, experiment=tmp_path.name))
    found.save()
    append(found.folder, "start", trials=3)
    return found


def client(study: Study) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(os.environ["MLFLOW_TRACKING_URI"])


def runs(study: Study) -> dict[str, Any]:
    """All runs by name; a name that is there twice fails."""
    found = client(study)
    experiment = found.get_experiment_by_name(study.run.experiment)
    listed = list(found.search_runs([experiment.experiment_id]))
    names = [run.info.run_name for run in listed]
    assert len(names) == len(set(names)), names
    return dict(zip(names, listed, strict=True))


def send(study: Study, status: str = "finished") -> list[str]:
    """A whole life of a family; what it said."""
    said: list[str] = []
    family = Family(study, study.folder, said.append, interval=0.05)
    family.start()
    family.end(status)
    return said


def test_trials_are_children_of_the_study_and_end_as_their_journals_say(study: Study) -> None:
    write_trial(study, 1, {10: 3.0, 90: 2.0})
    write_trial(study, 2, {10: 9.0}, status="stopped", summary={"reason": "behind"})
    folder = write_trial(study, 3, {}, status="failed", summary={"reason": "ValueError"})
    (folder / "failure.txt").write_text("Traceback")
    assert send(study) == []
    found = runs(study)
    assert set(found) == {"search", "trial_0001", "trial_0002", "trial_0003"}
    parent = found.pop("search")
    assert parent.info.status == "FINISHED"
    params = parent.data.params
    assert (params["trials"], params["run.seed"], params["run.k"]) == ("4", "0", "1")
    assert "run" not in params, "all of them in one"
    assert {r.data.tags["mlflow.parentRunId"] for r in found.values()} == {parent.info.run_id}
    assert [found[f"trial_000{n}"].info.status for n in (1, 2, 3)] == [
        "FINISHED",
        "KILLED",
        "FAILED",
    ]
    assert found["trial_0001"].data.params["k"] == "1"
    files = client(study).list_artifacts(found["trial_0003"].info.run_id)
    assert "failure.txt" in {file.path for file in files}


def test_a_search_that_goes_on_keeps_its_runs(study: Study) -> None:
    write_trial(study, 1, {10: 3.0})
    folder = write_trial(study, 2, {10: 9.0}, status=None)
    send(study, "stopped")
    before = {name: run.info.run_id for name, run in runs(study).items()}
    book = Journal(folder)
    book.write("start", 10, steps=90)
    book.write("metrics", 90, values={"fid_classifier": 1.0})
    book.write("end", 90, status="finished", summary={})
    book.close()
    append(study.folder, "start", trials=3)
    write_trial(study, 3, {10: 4.0})
    send(study)
    after = runs(study)
    assert {name: after[name].info.run_id for name in before} == before
    assert len(after) == 4
    assert {run.info.status for run in after.values()} == {"FINISHED"}
    history = client(study).get_metric_history(after["trial_0002"].info.run_id, "fid_classifier")
    assert [(m.step, m.value) for m in history] == [(10, 9.0), (90, 1.0)]


def test_new_trials_go_where_the_search_is_wherever_it_is_resumed(
    study: Study, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    send(study, "stopped")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    trial = write_trial(study, 1, {10: 3.0})
    family = Family(study, tmp_path / "elsewhere", print, interval=0.05)
    family.start()
    assert family.end("finished")
    parent, child = State.load(study.folder), State.load(trial)
    assert parent is not None
    assert child is not None
    assert (child.tracking_uri, child.experiment_id) == (parent.tracking_uri, parent.experiment_id)


def test_on_a_full_disk_the_search_and_its_trials_are_ended_in_mlflow(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(path: Path, text: str) -> str:
        return "No space left on device"

    write_trial(study, 1, {10: 3.0}, status=None)
    said: list[str] = []
    family = Family(study, study.folder, said.append, interval=0.05)
    family.send()
    assert {run.info.status for run in runs(study).values()} == {"RUNNING"}
    append(study.folder / "trial_0001", "message", text="more", level="info")
    monkeypatch.setattr("pipelines.tracking.unwritten", lost)
    family.start()
    family.end("stopped")
    assert {name: run.info.status for name, run in runs(study).items()} == {
        "search": "KILLED",
        "trial_0001": "KILLED",
    }
    assert len(said) == 1
    assert "No space left on device" in said[0]


def test_eight_trials_that_write_at_once_lose_nothing(study: Study) -> None:
    folders = [write_trial(study, number, {}, status=None) for number in range(1, 9)]

    def play(folder: Path) -> None:
        book = Journal(folder)
        for step in range(1, 101):
            book.write("metrics", step, values={"seconds": step * 0.1, "loss/generator": step / 7})
        book.write("end", 100, status="finished", summary={})
        book.close()

    said: list[str] = []
    family = Family(study, study.folder, said.append, interval=0.01)
    family.start()
    threads = [threading.Thread(target=play, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert family.end("finished")
    assert said == []
    found = runs(study)
    for folder in folders:
        history = client(study).get_metric_history(found[folder.name].info.run_id, "loss/generator")
        assert [(m.step, m.value) for m in history] == [(n, n / 7) for n in range(1, 101)]


def test_without_a_server_the_search_goes_on_and_is_sent_whole_later(
    study: Study, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_trial(study, 1, {10: 3.0})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    (told,) = send(study)
    assert "does not take the trials" in told
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    assert send(study) == []
    found = runs(study)
    assert found["trial_0001"].data.tags["mlflow.parentRunId"] == found["search"].info.run_id


def test_trials_that_tune_does_not_know_are_forgotten_everywhere(study: Study) -> None:
    write_trial(study, 1, {10: 3.0})
    lost = write_trial(study, 2, {10: 9.0}, status=None)
    (study.folder / "trial_0003").mkdir()
    send(study, "stopped")
    assert forget_lost_trials(study, {"trial_0001"}) == ["trial_0002", "trial_0003"]
    assert not lost.exists()
    assert set(runs(study)) == {"search", "trial_0001"}
    assert (study.folder / "trial_0001" / journal.FILE).exists()


def test_the_champion_is_who_beats_the_last_by_the_same_protocol(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [write_trial(study, number, {10: 3.0}) for number in range(1, 6)]
    send(study)
    logged: list[str] = []
    places: list[str] = []

    def log(folder: Path, *words: str) -> Logged:
        places.append(folder.name)
        logged.append(folder.parts[-3])
        return Logged(f"models:/m-{len(logged)}", f"m-{len(logged)}")

    monkeypatch.setattr("pipelines.tuning.champion.log_generator", log)
    found, versions = client(study), []
    monkeypatch.setattr(
        type(found), "create_model_version", _version_maker(type(found).create_model_version)
    )
    objective = Objective("fid", "min")
    native, resized = "A, resized to native: none; B", "A, resized to native: 16 px to 8 x 8; B"
    for folder, fid, protocol in zip(
        folders,
        (3.0, 4.0, 2.0, 1.0, float("nan")),
        (native, native, resized, "B", native),
        strict=True,
    ):
        told = crown("m", folder, objective, {"fid": fid}, {"inception": protocol})
        versions.append(found.get_model_version_by_alias("m", ALIAS).version)
        logged.append(told)
    first, worse, better, other, broken = (t for t in logged if not t.startswith("trial_"))
    assert "is the first champion" in first
    assert "does not beat the champion's 3" in worse
    assert "beats the champion's 3" in better
    assert "another protocol" in other
    assert "not finite" in broken
    assert [str(v) for v in versions] == ["1", "1", "2", "2", "2"]
    assert "is the champion already" in crown(
        "m", folders[2], objective, {"fid": 2.0}, {"inception": native}
    )
    # Another generator of the champion's run, and the same judged in another way.
    told = crown("m", folders[2], objective, {"fid": 1.5}, {"inception": resized})
    assert "beats the champion's 2 and takes its place (version 3)" in told
    told = crown("m", folders[2], objective, {"fid": 1.0}, {"inception": "B"})
    assert "measured by another protocol: that stays" in told
    crown("n", folders[0], objective, {"fid": 3.0}, {}, generator="best")
    assert places == ["last", "last", "last", "best"]


def _version_maker(original: Any) -> Any:
    """A version without a model's files: its source is never read here."""

    def make(self: Any, name: str, source: str, **words: Any) -> Any:
        assert words["model_id"] == source[8:]
        return original(
            self, name, f"file:///tmp/{source[8:]}", tags=words["tags"], run_id=words["run_id"]
        )

    return make


def test_sync_sends_a_search_with_its_trials(study: Study, database: str, monkeypatch) -> None:
    write_trial(study, 1, {10: 3.0})
    write_trial(study, 2, {10: 4.0}, status=None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    send(study)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    sent = sync(study.folder.parent)
    found = runs(study)
    assert found.keys() == {"search", "trial_0001", "trial_0002"}
    assert sent == sum(len(run.data.metrics) for run in found.values())
    for name, status in {"trial_0001": "FINISHED", "trial_0002": "KILLED"}.items():
        run = found[name]
        assert run.info.status == status
        assert run.data.tags["mlflow.parentRunId"] == found["search"].info.run_id
        assert (run.data.tags["kind"], run.data.tags["study"]) == ("trial", "search")
    assert sync(study.folder.parent, [study.folder]) == 0


def test_a_search_that_was_deleted_in_mlflow_is_brought_back_with_its_trials(study: Study) -> None:
    write_trial(study, 1, {10: 3.0})
    send(study)
    for run in runs(study).values():
        client(study).delete_run(run.info.run_id)
    assert "search had been deleted in MLflow: it is brought back" in send(study)
    assert runs(study).keys() == {"search", "trial_0001"}


def test_no_run_is_made_to_forget_a_trial_that_mlflow_has_lost(study: Study) -> None:
    from mlflow.entities import ViewType

    write_trial(study, 1, {10: 9.0}, status=None)
    send(study, "stopped")
    before = {run.info.run_id for run in runs(study).values()}
    folder = study.folder / "trial_0001"
    lost = State.load(folder)
    assert lost is not None
    dataclasses.replace(lost, run_id=32 * "0").save(folder)
    assert forget_lost_trials(study, set()) == ["trial_0001"]
    listed = client(study).search_runs([str(lost.experiment_id)], run_view_type=ViewType.ALL)
    assert {run.info.run_id for run in listed} == before


def test_lost_trials_are_forgotten_here_while_the_server_is_away(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = write_trial(study, 1, {10: 9.0}, status=None)
    send(study, "stopped")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert forget_lost_trials(study, set()) == ["trial_0001"]
    assert not lost.exists()


def test_a_registry_that_fails_is_a_line(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.exceptions import MlflowException

    folder = write_trial(study, 1, {10: 3.0})
    send(study)

    def fail(uri: str) -> None:
        raise MlflowException("the server has gone")

    monkeypatch.setattr("pipelines.tuning.champion.connect", fail)
    figures = {"fid_classifier": 3.0}
    failed = r"^not registered as model: MLflow failed \(.*the server has gone.*\); "
    with pytest.raises(NotRegistered, match=f"{failed}the same command tries again$"):
        crown("model", folder, study.objective, figures, {})
    with pytest.raises(NotRegistered, match=f"{failed}later$"):
        crown("model", folder, study.objective, figures, {}, again="later")
