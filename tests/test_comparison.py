from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from test_tuning import make_study, write_trial

from gan_core.errors import UserError
from gan_core.journal import Journal
from gan_core.metrics.names import declared_figures, evaluation_names, stem_of
from gan_core.pictures import save_png
from gan_core.variant import VARIANTS, list_variants
from pipelines.compare import CompareOptions, chosen, compare_command, write_page
from pipelines.comparison.entries import Entry, read_folder, repeats
from pipelines.comparison.render import _over, html, markdown
from pipelines.comparison.table import best, columns, differing_settings, mean_rows, rows
from pipelines.report.scales import Choices, Linear, Log, fitting

HERE, THERE = "classifier A: 100 train of digits", "classifier A: 50 test of digits"


def write_run(
    storage: Path,
    name: str,
    fid: float,
    *,
    protocol: str = HERE,
    variant: str = "gan",
    seed: int = 0,
    data: str = "0123456789abcdef",
    **options: Any,
) -> Path:
    """A run's folder with two evaluations, the last of which found ``fid``."""
    folder = storage / name
    folder.mkdir(parents=True)
    config = {"variant": variant, "data": "digits", "seed": seed, "options": {"k": 1, **options}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    book = Journal(folder)
    book.write("start", 0, steps=20, data=data)
    for step, value in ((10, 2 * fid), (20, fid)):
        logged = {"seconds": step / 10, "images_seen": 64.0 * step, "diversity": 0.9}
        book.write("metrics", step, values=logged | {"loss/generator": 1.0})
        book.write("metrics", step, values={"duality_gap": 0.1})
        book.write("metrics", step, values={"fid_classifier": value, "modes_covered": 10.0})
    book.write("tag", 20, name="protocol.classifier", value=protocol)
    book.write("tag", 20, name="protocol.modes", value="classes by A")
    picture = folder / "samples" / "s.png"
    save_png(torch.full((1, 4, 4), 128, dtype=torch.uint8), picture)
    book.write("picture", 20, name="samples", path="samples/s.png")
    book.write("end", 20, status="finished", summary={})
    book.close()
    return folder


def test_a_run_is_read_with_its_figures_and_not_with_its_signals(tmp_path: Path) -> None:
    entry = read_folder(write_run(tmp_path, "one", 3.0, k=5))
    assert entry.figures == {"fid_classifier": 3.0, "modes_covered": 10.0}
    assert entry.curves["fid_classifier"] == [(10, 6.0), (20, 3.0)]
    assert (entry.step, entry.seconds, entry.images_seen) == (20, 2.0, 1280.0)
    assert entry.settings == {"k": 5}
    assert entry.protocol_of("fid_classifier") == HERE
    assert entry.protocol_of("modes_covered") == "classes by A"
    assert entry.grid is not None
    assert entry.grid.startswith(b"\x89PNG")


def test_figures_of_the_verb_evaluate_have_protocols_of_their_own(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "one", 3.0)
    book = Journal(folder)
    book.write("metrics", 20, values={"test/fid_classifier": 4.0, "evaluate/fid_classifier": 3.5})
    book.write("metrics", 20, values={"validation/fid_classifier": 3.8})
    book.write("tag", 20, name="protocol.evaluate.test.classifier", value="on test")
    book.write("tag", 20, name="protocol.evaluate.validation.classifier", value="on validation")
    book.write("tag", 20, name="protocol.evaluate.train.classifier", value="on train")
    book.close()
    entry = read_folder(folder)
    prefixes = ("test/", "validation/", "evaluate/", "")
    found = [entry.protocol_of(f"{prefix}fid_classifier") for prefix in prefixes]
    assert found == ["on test", "on validation", "on train", HERE]
    assert [c.figure for c in columns([entry])][:3] == [
        "test/fid_classifier",
        "validation/fid_classifier",
        "evaluate/fid_classifier",
    ]


def test_figures_of_different_protocols_are_never_in_one_column(tmp_path: Path) -> None:
    one = read_folder(write_run(tmp_path, "one", 3.0))
    two = read_folder(write_run(tmp_path, "two", 2.0, protocol=THERE))
    found = columns([one, two])
    fids = [c for c in found if c.figure == "fid_classifier"]
    assert [c.protocol for c in fids] == [HERE, THERE]
    assert [[c.value(e) for e in (one, two)] for c in fids] == [[3.0, None], [None, 2.0]]
    assert all(best(c, [one, two]) is None for c in fids), "nothing to compare with"
    assert len([c for c in found if c.figure == "modes_covered"]) == 1


def test_systems_of_other_sizes_and_conditions_compare_at_the_datas_own_size(
    tmp_path: Path,
) -> None:
    def judged(resizer: str, recalled: str) -> str:
        against = f"{HERE} against 200 generated, resized to native: {resizer}"
        return f"{against}; kid 9, precision and recall k=3, class recall by {recalled}, ndb K=9"

    ways = (
        judged("none", "all fakes"),
        judged("16 px to 8 x 8, bicubic", "the fakes of the class"),
    )
    entries = []
    for variant, protocol in zip(("gan", "acgan"), ways, strict=True):
        folder = write_run(tmp_path, variant, 3.0, protocol=protocol, variant=variant)
        book = Journal(folder)
        values = {"min_class_recall_classifier": 0.5, "precision_classifier": 0.5}
        book.write("metrics", 20, values=values)
        book.close()
        entries.append(read_folder(folder))
    found = columns(entries)
    (fid,) = [c for c in found if c.figure == "fid_classifier"]
    assert fid.protocol.endswith("against 200 generated, resized to native; kid 9")
    assert [fid.value(e) for e in entries] == [3.0, 3.0]
    (precision,) = [c for c in found if c.figure == "precision_classifier"]
    assert precision.protocol.endswith("native; kid 9, precision and recall k=3, ndb K=9")
    recalls = [c.protocol for c in found if c.figure == "min_class_recall_classifier"]
    assert ["all fakes" in text for text in recalls] == [True, False], "it is another figure"


def test_a_run_that_has_begun_with_anothers_networks_says_so_and_is_in_no_mean_with_others(
    tmp_path: Path,
) -> None:
    folders = [write_run(tmp_path, name, 3.0, seed=i) for i, name in enumerate("abcd")]
    for folder in folders[2:]:
        book = Journal(folder)
        book.write("tag", 0, name="begun_from", value="a at step 1,200, fid_classifier 3")
        book.close()
    entries = [read_folder(folder) for folder in folders]
    cells = [row[4] for row in rows(entries, [])]
    assert cells == ["20", "20", *2 * ["20 (after a at step 1,200)"]]
    assert [[e.name for e in group] for group in repeats(entries)] == [["a", "b"], ["c", "d"]]


def test_the_best_of_a_column_has_a_star(tmp_path: Path) -> None:
    entries = [read_folder(write_run(tmp_path, n, f)) for n, f in (("a", 3.0), ("b", 2.0))]
    found = columns(entries)
    table = rows(entries, found)
    place = 6 + [c.figure for c in found].index("fid_classifier")
    assert [row[place] for row in table] == ["3", "2 *"]


@pytest.mark.parametrize(
    ("figure", "starred"),
    [
        ("test/kid", "low"), ("validation/psnr", "high"), ("parzen_log_likelihood", "high"),
        ("retrieval_excess_classifier", "high"), ("l1_inverse", "low"),
        ("parzen_standard_error", ""), ("vendi_ratio_classifier", ""), ("distance_ratio", ""),
        ("ms_ssim_real", ""), ("retrieval_real_classifier", ""), ("psnr_bicubic", ""),
        ("ssim_inverse_input", ""), ("test/chord_share_real", ""), ("of_ones_own", ""),
    ],
)  # fmt: skip
def test_only_what_is_good_has_a_star(figure: str, starred: str) -> None:
    values = {"low": 1.0, "high": 9.0}
    entries = [entry_of(name=name, figures={figure: v}) for name, v in values.items()]
    (column,) = columns(entries)
    table = rows(entries, [column])
    assert [row[0] for row in table if row[-1].endswith(" *")] == ([starred] if starred else [])


@pytest.mark.parametrize(
    ("values", "starred"),
    [((2.0, 2.0, 3.0), [True, True, False]), ((0.0, 0.0, 0.0), [False, False, False])],
)
def test_all_that_are_best_have_a_star_but_not_where_all_are_alike(
    values: tuple[float, ...], starred: list[bool]
) -> None:
    entries = [entry_of(name=str(i), figures={"kid": v}) for i, v in enumerate(values)]
    table = rows(entries, columns(entries))
    assert [row[-1].endswith(" *") for row in table] == starred


def test_means_are_over_seeds_of_the_same_settings(tmp_path: Path) -> None:
    for seed, fid in enumerate((1.0, 2.0, 3.0)):
        write_run(tmp_path, f"a{seed}", fid, seed=seed)
    write_run(tmp_path, "other", 9.0, k=5)
    entries = [read_folder(folder) for folder in sorted(tmp_path.iterdir())]
    assert [len(group) for group in repeats(entries)] == [3, 1]
    (row,) = mean_rows(entries, columns(entries))
    assert row[:4] == ["gan", "digits", "3", "2 +- 1"]
    assert differing_settings(entries) == ["k"]


def test_a_mean_is_of_runs_that_were_played_to_their_end(tmp_path: Path) -> None:
    for seed, fid in enumerate((1.0, 3.0, 50.0)):
        write_run(tmp_path, f"a{seed}", fid, seed=seed)
    Journal(tmp_path / "a2").write("end", 20, status="stopped", summary={})
    entries = [read_folder(folder) for folder in sorted(tmp_path.iterdir())]
    (row,) = mean_rows(entries, columns(entries))
    assert row[2:4] == ["2", "2 +- 1.4"]


def test_a_mean_says_of_how_many_it_is_where_some_lack_the_figure(tmp_path: Path) -> None:
    for seed, fid in enumerate((1.0, 3.0, 5.0)):
        folder = write_run(tmp_path, f"a{seed}", fid, seed=seed)
        if seed < 2:
            Journal(folder).write("metrics", 20, values={"test/mode_kl": fid})
    entries = [read_folder(folder) for folder in sorted(tmp_path.iterdir())]
    found = columns(entries)
    (row,) = mean_rows(entries, found)
    by_title = dict(zip([c.title for c in found], row[3:], strict=True))
    assert by_title["test/mode_kl"] == "2 +- 1.4 (of 2)"
    assert by_title["fid_classifier [1]"] == "3 +- 2"


def test_figures_of_other_generators_than_the_last_say_so(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "one", 3.0)
    book = Journal(folder)
    for step, value in ((20, 4.0), (10, 7.0)):  # the last one first
        book.write("metrics", step, values={"test/fid_classifier": value})
    book.write("metrics", 10, values={"validation/fid_classifier": 8.0})
    entry = read_folder(folder)
    assert entry.curves["test/fid_classifier"] == [(10, 7.0), (20, 4.0)]
    assert entry.figures["test/fid_classifier"] == 4.0, "in whichever order they were judged"
    text = markdown([entry], "all")
    assert "| 4 |" in text
    assert "| 8 @10 |" in text
    assert "@N is of the generator after N iterations" in text
    assert "@" not in markdown([read_folder(write_run(tmp_path, "two", 3.0))], "all")


def test_what_is_measured_again_in_another_way_takes_the_place_of_the_first(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "one", 3.0)
    book = Journal(folder)
    for value, how in ((4.0, HERE), (5.0, THERE)):
        book.replace_metrics(10, {"test/fid_classifier": value})
        book.write("tag", 10, name="protocol.evaluate.test.classifier", value=how)
    entry = read_folder(folder)
    assert entry.curves["test/fid_classifier"] == [(10, 5.0)]
    assert entry.protocol_of("test/fid_classifier").startswith("classifier A: 50 test")


def test_options_that_were_decided_are_settings_as_if_they_had_been_given(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "one", 3.0, gradient_penalty=None, ema=0.5)
    decided = {"gradient_penalty": 0.0, "ema": 0.9, "other": 1}
    Journal(folder).write("start", 20, decided=decided)
    assert read_folder(folder).settings == {"k": 1, "gradient_penalty": 0.0, "ema": 0.5}


def test_points_that_a_trial_has_taken_back_are_not_of_its_curve() -> None:
    from pipelines.comparison.from_mlflow import _standing

    def point(step: int, timestamp: int) -> Any:
        return SimpleNamespace(step=step, timestamp=timestamp)

    played = [(10, 1), (20, 2), (30, 3), (20, 4), (30, 5)]  # from 10 on it is another's
    kept = _standing([point(*p) for p in reversed(played)])
    assert [(p.step, p.timestamp) for p in kept] == [(10, 1), (20, 4), (30, 5)]


def test_a_seed_that_was_played_twice_counts_once_in_a_mean(tmp_path: Path) -> None:
    for name, seed, fid in (("b", 1, 9.0), ("a", 1, 1.0), ("c", 2, 3.0)):
        write_run(tmp_path, name, fid, seed=seed)
    entries = [read_folder(folder) for folder in sorted(tmp_path.iterdir())]
    (row,) = mean_rows(entries, columns(entries))
    assert row[2:4] == ["2", "2 +- 1.4"], "the last run of each seed, in time and not by name"
    assert mean_rows(entries[:2], columns(entries[:2])) == [], "one seed has no deviation"


def test_no_mean_is_of_runs_that_learned_from_different_splits() -> None:
    splits = ("train", "train", "train+validation")
    entries = [entry_of(seed=seed, train_split=split) for seed, split in enumerate(splits)]
    assert [[e.seed for e in group] for group in repeats(entries)] == [[0, 1], [2]]


def test_no_mean_is_of_runs_on_different_pictures(tmp_path: Path) -> None:
    for seed, data in enumerate(("aaaa", "aaaa", "bbbb", "bbbb")):
        write_run(tmp_path, f"a{seed}", float(seed), seed=seed, data=data)
    entries = [read_folder(folder) for folder in sorted(tmp_path.iterdir())]
    assert [[e.seed for e in group] for group in repeats(entries)] == [[0, 1], [2, 3]]


class Page(HTMLParser):
    """Collects what a page refers to, and whether its tags are closed."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attributes if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read_page(text: str) -> Page:
    """The page, which must be well-formed and need nothing but itself."""
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    assert "script" not in page.tags
    assert all(link.startswith("data:") for link in page.links)
    return page


def test_a_curve_joins_no_points_of_different_protocols(tmp_path: Path) -> None:
    """A run that was resumed at step 20 with other --samples, and replayed it."""
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump({"variant": "gan", "data": "digits"}))
    book = Journal(folder)
    played = [
        (10, 9.0, HERE),
        (20, 8.0, HERE),
        (20, 2.0, THERE),
        (30, 1.0, THERE),
        (40, 0.5, THERE),
    ]
    for step, value, protocol in played:
        book.write("metrics", step, values={"fid_classifier": value})
        book.write("tag", step, name="protocol.classifier", value=protocol)
    book.close()
    entry = read_folder(folder)
    (column,) = columns([entry])
    assert (column.protocol, column.value(entry)) == (THERE, 0.5)
    assert column.curve(entry) == [(30, 1.0), (40, 0.5)]
    assert _over(entry, column, "step") == [(30.0, 1.0), (40.0, 0.5)]
    assert entry.protocol_at("fid_classifier", 20) == HERE, "the first figure of a step stays"


@pytest.mark.parametrize("by", ["step", "images", "seconds"])
def test_the_page_is_whole_and_needs_nothing_else(tmp_path: Path, by: str) -> None:
    entries = [
        read_folder(write_run(tmp_path, name, 3.0, variant=name)) for name in ("gan", "<dcgan>")
    ]
    text = html(entries, "A & B", by)
    page = read_page(text)
    assert sum(link.startswith("data:image/png") for link in page.links) == 2
    assert {"table", "svg", "polyline"} <= page.tags
    assert "&lt;dcgan&gt;" in text
    assert "<dcgan>" not in text
    assert HERE in text


def test_markdown_has_the_same_tables(tmp_path: Path) -> None:
    text = markdown([read_folder(write_run(tmp_path, "one", 3.0))], "One")
    head, line, row = text.split("\n\n")[1].splitlines()
    assert head.count("|") == line.count("|") == row.count("|")
    assert "fid_classifier [1]" in head
    assert f"[1] {HERE}" in text


def test_the_verb_writes_a_page_of_the_runs_that_are_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    write_run(runs, "one", 3.0)
    write_run(runs, "two", 2.0, variant="dcgan")
    out = tmp_path / "page.html"
    words = ["--storage", str(runs), "--out", str(out)]
    assert compare_command([*words, "--variants", "gan"]) == 0
    assert "one" in read_page_text(out)
    assert "two" not in read_page_text(out)
    assert "1 run compared" in capsys.readouterr().out
    assert [e.name for e in chosen(["two"], CompareOptions(storage=str(runs)))] == ["two"]
    for wrong in (["--variants", "sgan"], ["--data", "ring"], ["three"], ["--markdown"]):
        with pytest.raises(UserError):
            compare_command([*words, *wrong])


def test_a_search_that_is_named_means_its_trials_by_names_that_no_other_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = make_study(tmp_path)
    study.save()
    write_trial(study, 1, {10: 5.0})
    write_trial(study, 2, {10: 6.0})
    own = CompareOptions(storage=str(tmp_path))
    both = ["search/trial_0001", "search/trial_0002"]
    assert [e.name for e in chosen(["search"], own)] == both
    assert [e.name for e in chosen(["search/trial_0002"] * 2, own)] == both[1:]
    assert [e.name for e in chosen(["search", "search/trial_0001"], own)] == both
    of_searches = CompareOptions(storage=str(tmp_path), trials=True)
    assert [e.name for e in chosen([], of_searches)] == both
    with pytest.raises(UserError, match=r"ask for others, such as those of searches \(--trials\)"):
        chosen([], own)
    from pipelines.__main__ import main

    for verb in ("diagnose", "evaluate", "sample"):
        assert main([verb, "search", "--storage", str(tmp_path)]) == 2
        assert "search is a search: name one of its trials" in capsys.readouterr().err


def read_page_text(path: Path) -> str:
    text = path.read_text()
    read_page(text)
    return text


def test_runs_are_read_from_mlflow_as_from_their_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.comparison.from_mlflow import read_experiment
    from pipelines.tracking import Tracker

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    folder = write_run(tmp_path, "one", 3.0)
    tracker = Tracker(folder, uri=uri, tags={"variant": "gan"}, models=False)
    tracker.send()
    tracker.finish("finished")
    tracker.close()
    (found,) = read_experiment(uri, "gan")
    wanted = read_folder(folder)
    assert found.grid is not None
    same = ("name", "variant", "data", "settings", "figures", "curves", "protocols", "clock")
    same += ("fingerprint",)
    assert [getattr(found, n) for n in same] == [getattr(wanted, n) for n in same]
    assert (found.status, found.step) == ("finished", 20)
    with pytest.raises(UserError, match="no experiment 'other'"):
        read_experiment(uri, "other")
    own = {"variant": "gan", "study": "search", "kind": "trial"}
    trial = Tracker(write_run(tmp_path, "trial_0001", 3.0), uri=uri, tags=own, models=False)
    trial.send()
    trial.close()
    assert [e.name for e in read_experiment(uri, "gan")] == ["one"]
    both = [e.name for e in read_experiment(uri, "gan", trials=True)]
    assert sorted(both) == ["one", "search/trial_0001"], "as of a folder"
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("gan").experiment_id
    foreign = client.create_run(experiment, run_name="foreign").info.run_id
    client.log_param(foreign, "seed", "None")
    assert {e.name: e.seed for e in read_experiment(uri, "gan")}["foreign"] == 0
    for wrong in ("htp://foo", "nosuch://a:b@127.0.0.1:1/x"):
        with pytest.raises(UserError, match=f"MLflow at {wrong} does not answer"):
            read_experiment(wrong, "gan")


def test_a_database_that_is_not_there_is_named_and_not_made(tmp_path: Path) -> None:
    from pipelines.comparison.from_mlflow import read_experiment

    with pytest.raises(UserError, match=r"no MLflow database .*mlflow.db: compare where"):
        read_experiment(f"sqlite:///{tmp_path / 'mlflow.db'}", "gan")
    assert list(tmp_path.iterdir()) == []


def test_all_pages_of_an_experiments_runs_are_read() -> None:
    from pipelines.comparison import from_mlflow

    class Page(list[int]):
        token: str | None = None

    class Client:
        def search_runs(self, ids: list[str], max_results: int, page_token: str = "0") -> list[int]:
            first = int(page_token)
            page = Page(range(first, min(first + max_results, 2345)))
            page.token = str(first + max_results) if first + max_results < 2345 else None
            return page

    assert from_mlflow._runs(Client(), "1") == list(range(2345))


def test_scales_place_what_they_hold() -> None:
    assert [Linear(0, 10).place(v) for v in (0, 5, 10)] == [0.0, 0.5, 1.0]
    assert Linear(0, 10).place(float("nan")) is None
    assert Log(1, 100).place(10) == pytest.approx(0.5)
    assert Log(1, 100).place(0) is None
    assert Choices(("a", "b")).place("b") == 0.75
    assert Choices(("a", "b")).place("c") is None
    assert isinstance(fitting([1.0, 1000.0]), Log)
    assert isinstance(fitting([-1.0, 1000.0]), Linear)
    for scale in (Linear(-3, 7), Linear(0, 1e-5), Log(1e-4, 3.0), fitting([2.0]), fitting([])):
        places = [place for place, _ in scale.ticks()]
        assert 2 <= len(places) <= 12
        assert all(-1e-9 <= place <= 1 + 1e-9 for place in places)


def entry_of(**changes: Any) -> Entry:
    return Entry(**{"name": "a", "variant": "gan", "data": "digits", "settings": {}, **changes})


def test_runs_with_findings_say_so() -> None:
    from pipelines.comparison.table import ended_as

    entry = entry_of(status="stopped", findings={"mode collapse": "confirmed", "x": "suspected"})
    assert ended_as(entry) == "stopped (mode collapse)"


def test_a_folder_is_no_page(tmp_path: Path) -> None:
    entries = [read_folder(write_run(tmp_path, "gan", 3.0))]
    with pytest.raises(UserError, match=r"is a folder: name a file such as .*comparison\.html"):
        write_page(entries, "title", tmp_path)


def test_the_verb_says_by_name_which_runs_it_leaves_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, "one", 3.0)
    write_run(tmp_path, "other", 2.0, variant="dcgan")
    bare = write_run(tmp_path, "bare", 1.0)
    text = (bare / "journal.jsonl").read_text().splitlines()
    (bare / "journal.jsonl").write_text("\n".join(x for x in text if "fid" not in x) + "\n")
    options = CompareOptions(storage=str(tmp_path), variants=("gan",))
    assert [e.name for e in chosen([], options)] == ["one"]
    said = capsys.readouterr().err
    assert "left out, without figures: bare (`evaluate RUN --extractor ...` makes some)\n" in said
    assert "left out, of other systems or sources: 1\n" in said
    with pytest.raises(
        UserError, match=r"no run has --variants sgan: runs have dcgan, gan \(trials of"
    ):
        chosen([], CompareOptions(storage=str(tmp_path), variants=("gan", "sgan")))
    with pytest.raises(UserError, match="no run has --data ring: runs have digits"):
        chosen([], CompareOptions(storage=str(tmp_path), data="ring"))


def test_runs_that_cannot_be_read_are_named_and_take_no_others_with_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("broken", "fine", "gone"):
        write_run(tmp_path, name, 3.0)
    (tmp_path / "broken" / "config.yaml").write_text("{")
    (tmp_path / "gone" / "config.yaml").unlink()
    assert [e.name for e in chosen([], CompareOptions(storage=str(tmp_path)))] == ["fine"]
    broken, gone = capsys.readouterr().err.splitlines()
    assert broken.startswith("left out, broken: configuration file ")
    assert "cannot be read as YAML" in broken
    assert gone.startswith("left out, gone: configuration file ")
    assert gone.endswith("does not exist")
    with pytest.raises(UserError, match="cannot be read as YAML"):
        chosen(["broken"], CompareOptions(storage=str(tmp_path)))


def test_what_was_measured_once_is_a_dot_beside_the_curves_of_others(tmp_path: Path) -> None:
    entries = [read_folder(write_run(tmp_path, name, 3.0)) for name in ("one", "two")]
    entries[0].curves["fid_classifier"] = [(20, 3.0)]
    assert html(entries, "Two").count('r="2.5"') == 1
    for entry in entries:
        entry.curves = {name: curve[-1:] for name, curve in entry.curves.items()}
    assert "<polyline" not in html(entries, "Two"), "no chart of single points alone"


def test_an_axis_of_nothing_but_zeros_begins_there() -> None:
    assert fitting([0.0, 0.0]) == Linear(0.0, 1.0)


def test_of_every_figure_that_evaluations_give_it_is_known_what_is_good() -> None:
    given = {
        name
        for conditions in (("label",), ("text",), ())
        for mixture in (True, False)
        for name in evaluation_names(
            ["classifier", "inception"], labels=True, mixture=mixture, conditions=conditions
        ).all()
    }
    own = {figure for name in list_variants() for figure in declared_figures(VARIANTS[name]) or ()}
    assert {name for name in given | own if stem_of(name) is None} == set()
    assert {"distance_ratio_classifier", "retrieval_real", "melody_distance"} <= given | own
