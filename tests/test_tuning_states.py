"""A search's files that a killed driver left half written are as they were before."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from pipelines.tuning.states import KEPT, Keeper, mend, whole

PICKLE = pickle.dumps({"points": list(range(300)), "name": "search"}, protocol=5)
JSON = json.dumps({"trial_data": ["a", "b"]}).encode()


@pytest.mark.parametrize("content", [PICKLE, JSON])
def test_every_beginning_of_a_file_is_known_not_to_be_all_of_it(content: bytes) -> None:
    assert whole(content)
    assert not any(whole(content[:length]) for length in range(len(content)))


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('a pickle was loaded')",)


def test_a_pickle_is_read_but_never_loaded() -> None:
    assert whole(pickle.dumps(Bomb()))


def test_a_broken_file_is_replaced_by_the_last_whole_one(tmp_path: Path) -> None:
    search, trials = (tmp_path / f"{n}-1.json" for n in ("search_gen_state", "experiment_state"))
    keeper = Keeper(tmp_path, pause=0)
    search.write_bytes(PICKLE)
    trials.write_bytes(JSON)
    keeper.keep()
    for half in (b"", PICKLE[:100]):
        search.write_bytes(half)
        keeper.keep()  # not kept: it is not whole
        assert mend(tmp_path) == [search.name]
        assert (search.read_bytes(), trials.read_bytes()) == (PICKLE, JSON)
    assert mend(tmp_path) == []


def test_what_has_changed_is_kept_anew(tmp_path: Path) -> None:
    search = tmp_path / "basic-variant-state-1.json"
    keeper = Keeper(tmp_path, pause=0)
    for number in (1, 2):
        content = pickle.dumps(number)
        search.write_bytes(content)
        keeper.keep()
        assert (tmp_path / KEPT / search.name).read_bytes() == content
    assert not list(tmp_path.rglob("*.partial"))


def test_a_broken_file_without_a_copy_is_taken_away(tmp_path: Path) -> None:
    older, newer = tmp_path / "searcher-state-1.pkl", tmp_path / "searcher-state-2.pkl"
    older.write_bytes(PICKLE)
    newer.write_bytes(b"")
    assert mend(tmp_path) == [newer.name]
    assert not newer.exists()
    assert older.read_bytes() == PICKLE
