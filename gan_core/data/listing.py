"""Which pictures a folder holds, in which class and in which split."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import logging
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from gan_core.data.pictures import EXTENSIONS
from gan_core.errors import UserError

_SPLIT_FOLDERS = {
    "train": "train",
    "test": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
}
"""The splits by their folders' names, in capitals or not."""
_LIKE_TRAIN = "train|training"
_LIKE_OTHERS = (
    "test|testing|val|valid|validate|validation|dev|development|eval|evaluation|hold-?out"
)
_LIKE_SPLIT = re.compile(
    rf"(?:(?P<train>{_LIKE_TRAIN})|{_LIKE_OTHERS})[ _-]?(?:set|data|images|pictures)?[ _-]?\d*"
)
"""What else splits are called: not taken as such, and not as classes where it looks like it."""
_KINDS = ", ".join(extension[1:] for extension in EXTENSIONS)
_SHARE = 0.1  # of a split that has no folder of its own

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Picture:
    """One file: ``name`` is its path relative to the root, with slashes; ``label`` its class."""

    path: str
    name: str
    label: int | None


@dataclasses.dataclass(frozen=True)
class Listing:
    """All pictures of a folder, sorted by name in each split; labels count ``class_names``."""

    splits: Mapping[str, Sequence[Picture]]
    class_names: tuple[str, ...]

    @property
    def paths(self) -> list[str]:
        """All paths, of train first."""
        order = ("train", "validation", "test")
        return [picture.path for split in order for picture in self.splits[split]]


def list_pictures(root: Path, folders: Mapping[str, Path] | None = None) -> Listing:
    """What is in ``root``: ``*.png``, ``<class>/*`` or ``train/...`` with ``test/...`` beside it.

    ``folders``, of splits by name, are taken in the place of such.

    A split without a folder of its own is drawn from the training pictures by
    :func:`draw_splits`. Classes are numbered in the order of their names. Raises ``UserError``
    for a missing or empty folder, an empty class and an ambiguous layout.
    """
    folders = folders or _split_folders(root)
    found = {split: _by_class(folder) for split, folder in folders.items()}
    class_names = tuple(name for name in found["train"] if name)
    for split, classes in found.items():
        _check_classes(folders[split], classes, folders["train"], found["train"])
    splits: dict[str, list[Picture]] = {"train": [], "validation": [], "test": []}
    missing = [split for split in splits if split not in found]
    for split, classes in found.items():
        for name, paths in classes.items():
            label = class_names.index(name) if name else None
            pictures = [Picture(path, _name(path, root), label) for path in paths]
            names = [picture.name for picture in pictures]
            train = split == "train"
            drawn = draw_splits(names, missing) if train else dict.fromkeys(names, split)
            for picture in pictures:
                splits[drawn[picture.name]].append(picture)
    for split, pictures in splits.items():
        pictures.sort(key=lambda picture: picture.name)
        if not pictures:
            divided = folders["train"] != root
            remedy = f"a folder of {split} beside it" if divided else f"folders train and {split}"
            raise UserError(
                f"{folders['train']} holds too few pictures for a {split} split: add some, or "
                f"{remedy}"
            )
    return Listing(splits, class_names)


def draw_splits(names: Iterable[str], missing: Sequence[str]) -> dict[str, str]:
    """The split of each of ``names``, the pictures of one class: a function of the name alone.

    A hash of the name gives each split in ``missing`` (of "validation", "test") 10 %, so that a
    picture stays where it is when others are added. Only where a split would have none of three
    or more pictures (of the class) does the one with the lowest hash move there; and of one or two
    that would all be held out, that with the highest hash is for training.
    """
    places = {name: place_of(name) for name in names}
    shares = {split: (i * _SHARE, (i + 1) * _SHARE) for i, split in enumerate(missing)}
    drawn = {
        name: next((s for s, (low, high) in shares.items() if low <= place < high), "train")
        for name, place in places.items()
    }
    for split in ("train", *missing):
        members = list(drawn.values())
        largest = max(set(members), key=lambda s: (members.count(s), s), default=split)
        if split not in members and members.count(largest) > 1:
            donors = [name for name, where in drawn.items() if where == largest]
            drawn[min(donors, key=lambda name: places[name])] = split
    if drawn and "train" not in drawn.values():
        drawn[max(drawn, key=lambda name: places[name])] = "train"
    return drawn


def place_of(name: str) -> float:
    """A number in [0, 1) that depends on the name only, on every machine."""
    digest = hashlib.sha256(unicodedata.normalize("NFC", name).encode(errors="replace"))
    return int.from_bytes(digest.digest()[:6], "big") / 2**48


def _name(path: str, root: Path) -> str:
    # As text: a Path for each of many pictures takes longer than reading their folder.
    inner = path.removeprefix(str(root).rstrip(os.sep) + os.sep).replace(os.sep, "/")
    return unicodedata.normalize("NFC", inner)


def _visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or through a file
        return False


def _is_picture(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)


def _entries(folder: Path) -> tuple[list[Path], list[str]]:
    """The folders and the pictures in ``folder``, sorted; other files are counted and logged."""
    try:
        with os.scandir(folder) as found:  # which knows a folder from a file without asking again
            entries = sorted((e for e in found if _visible(e.name)), key=lambda e: e.name)
    except FileNotFoundError:
        raise UserError(f"no folder {folder}: give an existing one with --data-root") from None
    except NotADirectoryError:
        raise UserError(f"{folder} is a file: --data-root must be a folder of pictures") from None
    except OSError as problem:
        raise UserError(f"cannot list {folder}: {problem.strerror}") from None
    folders = [Path(entry.path) for entry in entries if _is_folder(entry)]
    files = [entry for entry in entries if not _is_folder(entry)]
    pictures = [entry.path for entry in files if _is_picture(entry.name)]
    others = [entry for entry in files if not _is_picture(entry.name)]
    if others:
        _tell_ignored(folder, len(others), others[0].name)
    return folders, pictures


@functools.cache
def _tell_ignored(folder: Path, count: int, first: str) -> None:
    """Once, however often the folder is looked at."""
    told = f"a file in {folder} is" if count == 1 else f"{count} files in {folder} are"
    logger.warning("%s ignored, not named as pictures (%s): %s", told, _KINDS, first)


def _all_below(folder: Path, above: frozenset[str]) -> list[str]:
    """The pictures in ``folder`` and its folders; a link to one of those ``above`` (as they really
    are) is not followed: it would lead into other classes, other splits, or round and round.
    """
    real = os.path.realpath(folder)
    if real in above:
        return []
    folders, pictures = _entries(folder)
    return pictures + [path for f in folders for path in _all_below(f, above | {real})]


def _split_folders(root: Path) -> dict[str, Path]:
    """The folder of each split that has one; of "train" alone where ``root`` is not divided."""
    folders, _ = _entries(root)
    divided = [path for path in folders if path.name.lower() in _SPLIT_FOLDERS]
    others = [path.name for path in folders if path not in divided]
    names = ", ".join(path.name for path in divided)
    if others:
        _check_no_splits(root, folders)
    if not divided or (others and len(divided) == 1):
        return {"train": root}  # a single class may well be called "train"
    if others:
        raise UserError(
            f"{root} holds {names} and also '{others[0]}': "
            "move it away, or give the folder of classes itself"
        )
    found: dict[str, Path] = {}
    for path in divided:
        other = found.setdefault(_SPLIT_FOLDERS[path.name.lower()], path)
        if other != path:
            raise UserError(f"{root} holds both '{other.name}' and '{path.name}': remove one")
    if "train" not in found:
        raise UserError(f"{root} holds {names} but no folder 'train': add it")
    return found


def _check_no_splits(root: Path, folders: Sequence[Path]) -> None:
    """Raises ``UserError`` where splits by other names would be taken for classes: some of
    ``folders`` are called like train and another split, and hold alike, pictures or classes.
    """
    like = {path: _LIKE_SPLIT.fullmatch(path.name.lower()) for path in folders}
    named = [(path, bool(match["train"])) for path, match in like.items() if match]
    known = all(path.name.lower() in _SPLIT_FOLDERS for path, _ in named)
    if known or len({train for _, train in named}) < 2:
        return
    inner = [{folder.name for folder in _entries(path)[0]} for path, _ in named]
    if any(one == other or one & other for one, other in itertools.combinations(inner, 2)):
        told = ", ".join(f"'{path.name}'" for path, _ in named)
        raise UserError(
            f"{root} holds {told}, which look like splits: name them train, validation and test; "
            "or if they are classes, put all into a folder 'train'"
        )


def _by_class(folder: Path) -> dict[str, list[str]]:
    """The pictures of each class, or of the class "" where there are no class folders."""
    folders, pictures = _entries(folder)
    if not folders:
        if not pictures:
            raise UserError(f"no pictures ({_KINDS}) in {folder}: check --data-root")
        return {"": pictures}
    if pictures:
        raise UserError(
            f"{folder} holds both pictures ({Path(pictures[0]).name}, ...) and folders "
            f"({folders[0].name}, ...): put every picture into the folder of its class, or of its "
            "split (train, test)"
        )
    real = Path(os.path.realpath(folder))
    above = frozenset(map(str, (real, *real.parents)))
    return {path.name: _all_below(path, above) for path in folders}


def _check_classes(
    folder: Path, classes: Mapping[str, object], train: Path, known: Mapping[str, object]
) -> None:
    for name, paths in classes.items():
        if name not in known:
            what = f"class folder '{name}'" if name else "pictures without class folders"
            raise UserError(f"{folder} holds {what} and {train} does not: name them alike")
        if not paths:
            raise UserError(
                f"class folder {folder / name} holds no pictures ({_KINDS}): "
                "add some, or remove the folder"
            )
