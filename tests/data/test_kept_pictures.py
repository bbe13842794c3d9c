"""Decoded pictures in files: the same pictures, made once, by whoever comes first."""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import shutil
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from gan_core.data import kept_pictures as module
from gan_core.data import load_examples, pictures
from gan_core.data.kept_pictures import kept_pictures, picture_folder
from gan_core.data.pictures import BadPicture, PictureFormat, read_pictures
from gan_core.errors import UserError

FORM, SHAPE = PictureFormat(3, 8), (3, 8, 8)


class Files(NamedTuple):
    """Pictures, and a folder to keep them in."""

    paths: list[str]
    kept: Path


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    """Five pictures in two classes; everything is large enough to be kept."""
    monkeypatch.setattr(module, "LARGE", 0)
    generator, paths = np.random.default_rng(0), []
    for i in range(5):
        path = tmp_path / "pictures" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (10, 12, 3), np.uint8)).save(path)
        paths.append(str(path))
    return Files(paths, tmp_path / "kept")


def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> dict[int, BadPicture]:
        raise AssertionError("decoded again")

    monkeypatch.setattr(module, "decode_pictures", refuse)
    monkeypatch.setattr(pictures, "decode_pictures", refuse)


def same(found: tuple[torch.Tensor, list[int]], wanted: tuple[torch.Tensor, list[int]]) -> bool:
    return torch.equal(found[0], wanted[0]) and found[1] == wanted[1]


def test_pictures_from_the_file_are_those_that_were_decoded(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = read_pictures(files.paths, FORM, SHAPE, False)
    assert same(kept_pictures(files.paths, FORM, SHAPE, False, files.kept), wanted)
    no_decoding(monkeypatch)
    again = kept_pictures(files.paths, FORM, SHAPE, False, files.kept)
    assert same(again, wanted)
    again[0].zero_()  # the caller's own
    assert same(kept_pictures(files.paths, FORM, SHAPE, False, files.kept), wanted)
    assert sorted(p.suffix for p in files.kept.iterdir()) == [".json", ".lock", ".u8"]


@pytest.mark.parametrize("changed", ["time", "size"])
def test_a_changed_file_is_decoded_anew(files: Files, changed: str) -> None:
    path = Path(files.paths[2]).with_suffix(".bmp")  # all of one size
    files.paths[2] = str(path)
    Image.new("RGB", (10, 10), "blue").save(path)
    before = path.stat()
    first, _ = kept_pictures(files.paths, FORM, SHAPE, False, files.kept)
    Image.new("RGB", (10, 10) if changed == "time" else (11, 11), "red").save(path)
    if changed == "size":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size == before.st_size) == (changed == "time")
    second, _ = kept_pictures(files.paths, FORM, SHAPE, False, files.kept)
    assert torch.equal(second[2, :, 0, 0], torch.tensor([255, 0, 0], dtype=torch.uint8))
    assert torch.equal(second[:2], first[:2])


def test_another_wish_is_decoded_anew(files: Files) -> None:
    kept_pictures(files.paths, FORM, SHAPE, False, files.kept)
    gray, _ = kept_pictures(files.paths, PictureFormat(1, 8), (1, 8, 8), False, files.kept)
    assert gray.shape == (5, 1, 8, 8)
    assert len(list(files.kept.glob("*.u8"))) == 2


def test_bad_pictures_are_left_out_and_counted_each_time(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    for place in (0, 3):
        Path(files.paths[place]).write_bytes(b"no picture")
    wanted = read_pictures(files.paths, FORM, SHAPE, True)
    assert wanted[1] == [1, 2, 4]
    told = caplog.messages
    assert len(told) == 1
    assert "skipped 2 of 5 pictures, the first: " in told[0]
    assert "0.png is no readable picture" in told[0]
    for _ in range(2):
        caplog.clear()
        assert same(kept_pictures(files.paths, FORM, SHAPE, True, files.kept), wanted)
        assert caplog.messages == told
    with pytest.raises(BadPicture, match=r"0.png is no readable picture"):
        kept_pictures(files.paths, FORM, SHAPE, False, files.kept)
    assert not list(files.kept.glob("*.part"))


def test_what_the_system_refuses_for_a_while_is_not_kept_as_bad(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        opened = Image.open

        def refuse(path: str) -> Image.Image:
            if path == files.paths[1]:
                raise PermissionError(13, "Permission denied", path)
            return opened(path)

        patched.setattr(Image, "open", refuse)
        found = kept_pictures(files.paths, FORM, SHAPE, True, files.kept)
        assert found[1] == [0, 2, 3, 4]
        assert same(found, read_pictures(files.paths, FORM, SHAPE, True))
    assert kept_pictures(files.paths, FORM, SHAPE, True, files.kept)[1] == [0, 1, 2, 3, 4]


def test_a_link_to_nothing_is_bad_like_any_other_file(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    Path(files.paths[4]).unlink()
    Path(files.paths[4]).symlink_to("nothing")
    assert kept_pictures(files.paths, FORM, SHAPE, True, files.kept)[1] == [0, 1, 2, 3]
    assert "cannot be kept" not in caplog.text
    assert "4.png is no readable picture" in caplog.text


def test_if_no_picture_can_be_read_there_are_none(files: Files) -> None:
    for path in files.paths:
        Path(path).write_bytes(b"no picture")
    found, kept = kept_pictures(files.paths, FORM, SHAPE, True, files.kept)
    assert found.shape == (0, *SHAPE)
    assert kept == []


def test_a_file_that_was_cut_short_is_made_again(files: Files) -> None:
    wanted = kept_pictures(files.paths, FORM, SHAPE, False, files.kept)
    wanted = wanted[0].clone(), wanted[1]
    (pixels,) = files.kept.glob("*.u8")
    pixels.write_bytes(b"x" * 100)
    assert same(kept_pictures(files.paths, FORM, SHAPE, False, files.kept), wanted)
    for broken in ('{"shape": [5', '{"shape": [], "skipped": [], "told": ""}', "[]", "{}"):
        next(files.kept.glob("*.json")).write_text(broken)
        assert same(kept_pictures(files.paths, FORM, SHAPE, False, files.kept), wanted)


def _promises_more_than_it_has() -> bool:
    """Whether the system lets more memory be asked for than there is (Linux's usual way)."""
    rule = Path("/proc/sys/vm/overcommit_memory")
    return rule.exists() and rule.read_text().strip() != "2"


@pytest.mark.skipif(not _promises_more_than_it_has(), reason="a system that sets memory aside")
def test_a_file_larger_than_the_memory_can_be_mapped(tmp_path: Path) -> None:
    path, size = tmp_path / "large", 4 * psutil.virtual_memory().total + psutil.swap_memory().total
    with path.open("wb") as file:
        file.truncate(size)  # no block of it is on the disk
    found = module._mapped(path, (size // 4, 4))
    found[-1] = 3
    assert found[[0, -1]].tolist() == [[0, 0, 0, 0], [3, 3, 3, 3]]


def test_what_others_have_kept_serves_though_it_may_not_be_changed(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = kept_pictures(files.paths, FORM, SHAPE, False, files.kept)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refuse)
    no_decoding(monkeypatch)
    assert same(kept_pictures(files.paths, FORM, SHAPE, False, files.kept), wanted)


def test_without_locks_everyone_decodes_for_itself(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    wanted = read_pictures(files.paths, FORM, SHAPE, False)
    assert same(kept_pictures(files.paths, FORM, SHAPE, False, files.kept), wanted)


def test_of_two_at_once_one_decodes_and_the_other_waits(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, calls, found = module.decode_pictures, [], []

    def slow(*arguments: object) -> dict[int, BadPicture]:
        calls.append(1)
        time.sleep(0.3)
        return decode(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "decode_pictures", slow)
    threads = [
        threading.Thread(
            target=lambda: found.append(kept_pictures(files.paths, FORM, SHAPE, False, files.kept))
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert same(found[0], found[1])


@pytest.mark.parametrize("why", ["a file is in the way", "the disk is full", "cannot be mapped"])
def test_where_nothing_can_be_kept_pictures_are_read_into_memory(
    files: Files, why: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if why == "a file is in the way":
        files.kept.write_text("")
    elif why == "the disk is full":
        full = type(shutil.disk_usage("/"))(100, 99, 1)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    else:

        def refuse(*_: object, **__: object) -> None:
            raise OSError(19, "No such device")

        monkeypatch.setattr(mmap, "mmap", refuse)
    with caplog.at_level(logging.WARNING):
        found = kept_pictures(files.paths, FORM, SHAPE, False, files.kept)
    assert same(found, read_pictures(files.paths, FORM, SHAPE, False))
    assert "cannot be kept" in caplog.text
    assert "--picture-cache" in caplog.text


def test_small_sets_and_the_word_none_keep_nothing(
    files: Files, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept_pictures(files.paths, FORM, SHAPE, False, None)
    monkeypatch.setattr(module, "LARGE", 5 * 3 * 8 * 8 + 1)
    kept_pictures(files.paths, FORM, SHAPE, False, files.kept)
    assert not files.kept.exists()
    assert picture_folder("none") is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert picture_folder(None) == tmp_path / "gan-pipelines" / "pictures"
    assert picture_folder(str(files.kept)) == files.kept
    with pytest.raises(UserError, match="--picture-cache ~nobody-at-all/x: there is no such user"):
        picture_folder("~nobody-at-all/x")


def test_what_was_not_used_for_long_is_deleted(files: Files) -> None:
    for count in (1, 2):
        kept_pictures(files.paths[:count], FORM, SHAPE, False, files.kept)
    old, recent = sorted(files.kept.glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in files.kept.glob(f"{old.stem}*"):
        os.utime(path, (0, 0))
    left, young, busy = (files.kept / f"{24 * digit}-a_1.part" for digit in "0ab")
    for path in (left, young, busy):
        path.write_text("")
    for path in (left, busy):
        os.utime(path, (0, 0))
    lock = files.kept / f"{24 * 'b'}.lock"
    with module._locked(lock):
        os.utime(lock, (0, 0))
        kept_pictures(files.paths, FORM, SHAPE, False, files.kept)
    assert recent.exists()
    assert young.exists()
    assert busy.exists()
    assert not left.exists()
    assert not list(files.kept.glob(f"{old.stem}*"))


def test_what_is_not_of_the_cache_stays_however_old_it_is(files: Files) -> None:
    key = "507f1f77bcf86cd799439011"
    names = (
        "thesis.tex", "notes", "results.json", "results.csv", ".hidden", "run-1.part",
        f"{key}.json", f"{key}.txt", f"{key.upper()}.lock", f"{key[:-1]}-ab12.u8", f"{key}-.u8",
    )  # fmt: skip
    files.kept.mkdir()
    for name in names:
        (files.kept / name).write_text('{"pixels": 3}' if name.endswith("json") else "mine")
        os.utime(files.kept / name, (0, 0))
    folders = ("photos", f"{24 * 'c'}-ab12.u8")
    for name in folders:
        (files.kept / name).mkdir()
        os.utime(files.kept / name, (0, 0))
    link = files.kept / f"{24 * 'd'}-ab12.u8"
    link.symlink_to(files.kept / "notes")
    before = {path.name for path in files.kept.iterdir()}
    kept_pictures(files.paths, FORM, SHAPE, False, files.kept)
    after = {path.name for path in files.kept.iterdir()}
    assert before <= after
    (own,) = {name[:24] for name in after - before}
    assert all(name.startswith(own) for name in after - before)


def test_pixels_that_were_made_again_take_the_place_of_the_others(files: Files) -> None:
    first, _ = kept_pictures(files.paths, FORM, SHAPE, False, files.kept)
    for broken in ("pixels", "facts") * 2:
        path = next(files.kept.glob("*.u8" if broken == "pixels" else "*.json"))
        path.rename(path.with_name(f"{path.stem[:24]}-was.u8"))  # the file that ``first`` maps
        path.write_bytes(b"cut short")
        again, _ = kept_pictures(files.paths, FORM, SHAPE, False, files.kept)
        assert torch.equal(again, first)
        assert sorted(p.suffix for p in files.kept.iterdir()) == [".json", ".lock", ".u8"]


@pytest.mark.parametrize("source", ["folder", "pairs", "unpaired", "captions"])
def test_every_source_of_pictures_keeps_them(
    files: Files, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(files.paths[0]).parents[1]
    shutil.copytree(root / "a", root / "c")
    options: dict[str, object] = {"image_size": 8}
    if source in ("pairs", "unpaired"):
        options |= {"input_folder": "a", "target_folder": "c"}
    if source == "captions":
        shutil.rmtree(root / "c")
        rows = [f"{Path(p).relative_to(root)},words {i}" for i, p in enumerate(files.paths)]
        (root / "captions.csv").write_text("\n".join(["file_name,text", *rows]) + "\n")
        options |= {"text_encoder": "words", "text_cache": str(files.kept / "texts")}
    wanted = load_examples(source, root, "train", picture_cache="none", **options)
    assert not list(files.kept.glob("*.u8"))
    keeping = {**options, "picture_cache": str(files.kept)}
    first = load_examples(source, root, "train", **keeping)
    no_decoding(monkeypatch)
    assert load_examples(source, root, "train", **keeping).fingerprint == wanted.fingerprint
    assert first.fingerprint == wanted.fingerprint


def grey_files(files: Files) -> None:
    for path in files.paths:
        Image.open(path).convert("L").save(path)


def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are opened from now on to see whether they are in colour."""
    seen: list[str] = []
    own = pictures.is_colour
    monkeypatch.setattr(pictures, "is_colour", lambda path: seen.append(path) or own(path))
    return seen


def test_grey_files_are_opened_once_to_know_that_they_are_grey(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MANY", 3)
    grey_files(files)
    seen = opened(monkeypatch)
    root = Path(files.paths[0]).parents[1]
    for _ in range(3):
        found = load_examples("folder", root, "train", image_size=8, picture_cache=str(files.kept))
        assert found.spec.target_shape == (1, 8, 8)
    assert sorted(seen) == sorted(files.paths)
    Image.new("RGB", (12, 10), (255, 0, 0)).save(files.paths[3])
    assert module.kept_channels(files.paths, False, files.kept) == 3


@pytest.mark.parametrize("why", ["few", "no folder", "colour", "refused"])
def test_what_is_known_at_once_or_may_change_is_not_kept(
    why: str, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MANY", 9 if why == "few" else 3)
    if why != "colour":
        grey_files(files)
    if why == "refused":
        passing = BadPicture("refused")
        passing.passing = True

        def refuse(path: str) -> bool:
            raise passing

        monkeypatch.setattr(pictures, "is_colour", refuse)
    folder = None if why == "no folder" else files.kept
    found = module.kept_channels(files.paths, True, folder)
    assert found == (3 if why == "colour" else 1)
    assert not files.kept.exists()


def test_a_picture_of_another_size_is_refused_and_nothing_is_left(files: Files) -> None:
    with pytest.raises(UserError, match="12 x 10 pixels where others have"):
        kept_pictures(files.paths, PictureFormat(3), SHAPE, True, files.kept)
    assert [path.suffix for path in files.kept.iterdir()] == [".lock"]


def test_how_far_the_reading_is_gets_told(
    files: Files, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pictures, "_TOLD_EVERY", -1.0)
    monkeypatch.setattr(pictures, "_CHUNK", 2)
    with caplog.at_level(logging.INFO):
        read_pictures(files.paths, FORM, SHAPE, False)
    told = [record.getMessage().rpartition(", ")[0] for record in caplog.records]
    assert told == [f"read {done} of 5 pictures" for done in (2, 4, 5)]
