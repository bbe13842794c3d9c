"""Loading a source by its name, and what must hold of data before training spends time on it."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gan_core.data.examples import Examples, Split, TensorSpec
from gan_core.data.sources import SOURCES, Source
from gan_core.errors import UserError, unknown_word
from gan_core.options import option, parse, value_type
from gan_core.paths import exists, user_path


def source_options_class(source: str) -> type:
    """The options of ``source`` as a dataclass, from its constructor's keyword-only arguments.

    What one means is the text of its ``Annotated`` type. Raises ``UserError`` for one without a
    default.
    """
    constructor = SOURCES[source].__init__
    hints = typing.get_type_hints(constructor, include_extras=True)
    fields: list[Any] = []
    for name, parameter in inspect.signature(constructor).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.default is parameter.empty:
                raise UserError(
                    f"the option '{name}' of data source '{source}' has no default: give it one"
                )
            hint, told = hints.get(name, type(parameter.default)), f"of {source}"
            if typing.get_origin(hint) is typing.Annotated:
                hint, told, *_ = typing.get_args(hint)
            fields.append((name, hint, option(parameter.default, told)))
    return dataclasses.make_dataclass(f"{source} options", fields)


def source_options(source: str) -> dict[str, tuple[type, Any]]:
    """The options of ``source``: name -> (type, default).

    The type is ``str``, ``int``, ``float`` or ``bool``; whether ``None`` is allowed shows in the
    default. :func:`source_options_class` says what they mean.
    """
    cls = source_options_class(source)
    found = {}
    for field in dataclasses.fields(cls):
        kind, _ = value_type(cls, field.name)
        found[field.name] = (kind if isinstance(kind, type) else str, field.default)
    return found


def create_source(source: str, root: str | Path | None = None, **options: object) -> Source:
    """The source called ``source``, its options checked; ``~`` in ``root`` is expanded.

    Raises ``UserError`` for an unknown source or option, a wrong value, a missing root.
    """
    kind = SOURCES[source]
    cls = source_options_class(source)
    known = [field.name for field in dataclasses.fields(cls)]
    for name in options:
        if name.replace("-", "_") not in known:
            raise unknown_word(f"option of data source '{source}'", name, known)
    values = vars(parse(cls, options))
    folder = None if root is None else user_path(root, "--data-root").absolute()
    if folder is None and kind.needs_root:
        raise UserError(f"--data {source} needs --data-root: the folder that holds its files")
    if folder is not None and not exists(folder) and not values.get("download"):
        raise UserError(f"no folder {folder}: give an existing one with --data-root")
    return kind(folder, **values)


def load_examples(
    source: str, root: str | Path | None, split: Split, **options: object
) -> Examples:
    """The examples of one split ("train", "validation", "test" or "train+validation").

    Raises ``UserError``, naming the file or option and what to do, for anything wrong with them.
    """
    known = typing.get_args(Split)
    if split not in known:
        raise unknown_word("split", split, known)
    opened = create_source(source, root, **options)
    if split != "train+validation":
        return _loaded(opened, source, split)
    first, second = _loaded(opened, source, "train"), _loaded(opened, source, "validation")
    return concatenate(first, second, split)


def _loaded(opened: Source, source: str, split: Split) -> Examples:
    found: object = opened.load(split)
    if not isinstance(found, Examples):
        raise UserError(
            f"data source '{source}' gave {type(found).__name__} for its {split} split: its `load` "
            "must return Examples"
        )
    return found


def concatenate(first: Examples, second: Examples, split: Split) -> Examples:
    """The examples of ``first``, then those of ``second``, which have the same specification."""
    tensors = {name: torch.cat([t, second.tensors[name]]) for name, t in first.tensors.items()}
    return dataclasses.replace(first, tensors=tensors, split=split)


def check_examples(examples: Examples, *, batch_size: int) -> None:
    """Raises ``UserError`` if a run on ``examples`` would fail or mean nothing.

    Checked are: a target; at least one global batch; every tensor's shape, type, length, finiteness
    and range against the specification; labels in [0, classes), and in training data every class.
    """
    where = f"the {examples.split} split of '{examples.source}'"
    if examples.spec.target not in examples.spec.tensors:
        raise UserError(
            f"{where} has no specification of its target '{examples.spec.target}', but of "
            f"{', '.join(sorted(examples.spec.tensors))}: give its DataSpec one of them as target"
        )
    own = examples.spec.tensors[examples.spec.target].series
    for name, spec in examples.spec.tensors.items():
        if name not in examples.tensors:
            raise UserError(f"{where} has no tensor '{name}', which its specification promises")
        tensor = examples.tensors[name]
        if not isinstance(tensor, Tensor):
            raise UserError(
                f"'{name}' in {where} is a {type(tensor).__name__}, not a torch.Tensor: make it "
                "one (torch.from_numpy, torch.tensor)"
            )
        if tensor.requires_grad:
            raise UserError(f"'{name}' in {where} requires a gradient: give it detached")
        count = len(tensor) if spec.series != own else len(examples)
        if name == examples.spec.target and examples.spec.pictures:
            _check_bounds_of_pictures(f"'{name}' in {where}", spec)
        _check_form(f"'{name}' in {where}", tensor, spec, count)
        if len(tensor) < batch_size:
            raise UserError(
                f"{where} holds {len(tensor)} examples, fewer than one batch of {batch_size}: "
                "give more, or a smaller --batch-size"
            )
        if spec.classes is None:
            _check_values(f"'{name}' in {where}", tensor, spec)
        else:
            _check_labels(f"'{name}' in {where}", tensor, spec.classes)
    if examples.split in ("train", "train+validation"):
        _check_every_class(where, examples)


def _check_bounds_of_pictures(what: str, spec: TensorSpec) -> None:
    """Extractors, sheets of pictures and augmentation take pictures for what lies in [-1, 1]."""
    if (spec.low, spec.high) != (-1.0, 1.0):
        raise UserError(
            f"{what} is a picture by its name and shape, with the bounds {spec.low} and "
            f"{spec.high}: give it TensorSpec({spec.shape}, -1.0, 1.0) and pixels of 0..255 "
            "(torch.uint8), or another name if it is none"
        )


def _check_form(what: str, tensor: Tensor, spec: TensorSpec, count: int) -> None:
    if tuple(tensor.shape) != (count, *spec.shape):
        raise UserError(f"{what} has the shape {tuple(tensor.shape)}, not {(count, *spec.shape)}")
    if spec.classes is not None:
        allowed: tuple[torch.dtype, ...] = (torch.int64,)
    elif len(spec.shape) == 3 and (spec.low, spec.high) == (-1.0, 1.0):
        # Resizing and padding are of pixels: floats would be rounded to two values.
        if tensor.dtype != torch.uint8:
            raise UserError(
                f"{what} is {tensor.dtype}, not torch.uint8: give pictures as pixels of 0..255"
            )
        return
    elif (spec.low, spec.high) == (-1.0, 1.0):
        allowed = (torch.uint8, torch.float32)
    else:
        allowed = (torch.float32,)
    if tensor.dtype not in allowed:
        raise UserError(f"{what} is {tensor.dtype}, not {' or '.join(map(str, allowed))}")


def _first(wrong: Tensor) -> int:
    """The position of the first example of which any value is wrong."""
    return int(wrong.reshape(len(wrong), -1).any(dim=1).nonzero()[0])


def _check_values(what: str, tensor: Tensor, spec: TensorSpec) -> None:
    if not tensor.is_floating_point():
        return
    wrong = ~torch.isfinite(tensor)
    if wrong.any():
        raise UserError(f"{what} is not finite (NaN or inf) at position {_first(wrong)}: repair it")
    low = -float("inf") if spec.low is None else spec.low
    high = float("inf") if spec.high is None else spec.high
    wrong = (tensor < low) | (tensor > high)
    if wrong.any():
        raise UserError(f"{what} leaves {low:g}..{high:g} at position {_first(wrong)}: rescale it")


def _check_labels(what: str, labels: Tensor, classes: int) -> None:
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        position = _first(wrong)
        raise UserError(
            f"{what} is {labels.flatten()[position]} at position {position}, "
            f"out of range 0..{classes - 1}: repair the labels"
        )


def _check_every_class(where: str, examples: Examples) -> None:
    if not examples.spec.classes:
        return
    counts = torch.bincount(examples.tensors["label"].flatten(), minlength=examples.spec.classes)
    for label in (counts == 0).nonzero().flatten().tolist():
        names = examples.spec.class_names
        name = f" ('{names[label]}')" if names else ""
        raise UserError(f"{where} has no example of class {label}{name}: add some")
