"""Options: types, bounds, kinds, and errors that say what to do."""

from __future__ import annotations

import dataclasses
import typing

import pytest

from gan_core.errors import UserError
from gan_core.options import choices_of, differences, flag, option, parse, value_type
from gan_core.registry import Registry


@dataclasses.dataclass(frozen=True)
class Example:
    steps: int = option(100, "iterations", kind="schedule", minimum=1)
    lr_d: float = option(0.1, "rate", kind="schedule", above=0)
    decay: float = option(0.9, "decay", minimum=0, below=1)
    kernel: int = option(5, "size", minimum=4, maximum=5)
    loss: str = option("hinge", "loss", choices=("hinge", "minimax"))
    flip: bool = option(False, "mirror", kind="runtime")
    weight: float | None = option(None, "weight", minimum=0)
    names: tuple[str, ...] = option((), "names")
    stops: tuple[str, ...] = option((), "ends", choices=("collapse", "divergence"))
    extra: dict[str, int] | None = option(None, "extra")


def test_text_becomes_values_of_the_fields_types() -> None:
    texts = {"steps": "20", "lr_d": "1e-3", "loss": "minimax", "flip": "yes", "weight": "2"}
    parsed = parse(Example, texts)
    assert parsed == Example(steps=20, lr_d=1e-3, loss="minimax", flip=True, weight=2.0)
    assert isinstance(parsed.weight, float)
    assert isinstance(parsed.steps, int)


@pytest.mark.parametrize("word", ["true", "Yes", "ON", "false", "No", "OFF", True, False])
def test_words_for_true_and_false(word: object) -> None:
    expected = str(word).lower() in ("true", "yes", "on")
    assert parse(Example, {"flip": word}).flip is expected
    with pytest.raises(UserError, match=r"--flip must be true or false, not 'maybe'"):
        parse(Example, {"flip": "maybe"})


@pytest.mark.parametrize("given", ["collapse,divergence", ["collapse", " divergence "]])
def test_several_words_are_each_one_of_the_choices(given: object) -> None:
    assert parse(Example, {"stops": given}).stops == ("collapse", "divergence")
    with pytest.raises(UserError, match="unknown --stops 'collaps': did you mean 'collapse'"):
        parse(Example, {"stops": "divergence,collaps"})


def test_nothing_given_is_the_defaults() -> None:
    assert parse(Example, {}) == Example()


def test_the_types_of_a_class_are_resolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved: list[type] = []
    resolve = typing.get_type_hints
    monkeypatch.setattr(typing, "get_type_hints", lambda cls: resolved.append(cls) or resolve(cls))
    for one in (Example, dataclasses.make_dataclass("Later", [("k", int, option(1, "turns"))])):
        for field in dataclasses.fields(one):
            value_type(one, field.name)
            choices_of(one, field)
        assert resolved.count(one) <= 1
    assert len(resolved) <= 2


def test_names_may_be_written_as_flags() -> None:
    assert parse(Example, {"lr-d": 0.5}).lr_d == 0.5
    assert flag("lr_d") == "--lr-d"


def test_values_on_their_bounds() -> None:
    assert parse(Example, {"steps": 1, "decay": 0, "kernel": 4}).kernel == 4
    assert parse(Example, {"kernel": 5.0}).kernel == 5


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("steps", 0, "--steps must be at least 1, not 0"),
        ("steps", "many", "--steps must be a whole number, not 'many'"),
        ("steps", "1.5", "--steps must be a whole number, not '1.5'"),
        ("steps", 1.5, "--steps must be a whole number, not '1.5'"),
        ("steps", True, "--steps must be a whole number, not 'True'"),
        ("steps", None, "--steps needs a value"),
        ("lr_d", 0, "--lr-d must be greater than 0, not 0.0"),
        ("lr_d", "-1", "--lr-d must be greater than 0, not -1.0"),
        ("lr_d", "fast", "--lr-d must be a number, not 'fast'"),
        ("lr_d", "nan", "--lr-d must be finite, not 'nan'"),
        ("lr_d", "inf", "--lr-d must be finite, not 'inf'"),
        ("lr_d", [1], r"--lr-d must be a number, not '\[1\]'"),
        ("decay", 1, "--decay must be less than 1, not 1.0"),
        ("kernel", 6, "--kernel must be at most 5, not 6"),
        ("loss", "minmax", "unknown --loss 'minmax': did you mean 'minimax'?"),
        ("loss", "zzz", "unknown --loss 'zzz': choose from: hinge, minimax"),
        ("flip", "perhaps", "--flip must be true or false, not 'perhaps'"),
        ("extra", 3, "--extra must be a mapping, not '3'"),
        ("stepps", 3, "unknown option 'stepps': did you mean 'steps'?"),
    ],
)
def test_a_wrong_value_is_answered_in_one_line(name: str, value: object, message: str) -> None:
    with pytest.raises(UserError, match=f"^{message.replace('?', '[?]')}$") as caught:
        parse(Example, {name: value})
    assert "\n" not in str(caught.value)


def test_only_optional_options_may_be_none() -> None:
    assert parse(Example, {"weight": None}).weight is None
    assert value_type(Example, "weight") == (float, True)
    assert value_type(Example, "lr_d") == (float, False)
    assert value_type(Example, "names") == (tuple, False)


def test_lists_become_tuples_and_single_values_lists_of_one() -> None:
    assert parse(Example, {"names": ["a", "b"]}).names == ("a", "b")
    assert parse(Example, {"names": "a"}).names == ("a",)
    assert parse(Example, {"extra": {"a": 1}}).extra == {"a": 1}


def test_differences_are_told_by_kind() -> None:
    old, new = Example(), Example(steps=7, decay=0.5, flip=True)
    assert differences(old, new, "schedule") == [("steps", 100, 7)]
    assert differences(old, new, "identity") == [("decay", 0.9, 0.5)]
    assert differences(old, new, "runtime") == [("flip", False, True)]
    assert differences(old, Example(), "schedule") == []


def test_a_registry_lists_its_names_in_order_and_refuses_a_second_thing_of_a_name() -> None:
    registry: Registry[int] = Registry("number")
    registry.register("two")(2)
    registry.register("one")(1)
    registry.register("one")(1)
    assert list(registry) == ["one", "two"]
    assert "one" in registry
    assert "three" not in registry
    with pytest.raises(ValueError, match="number 'one' is registered already"):
        exec("registry.register('one')(3)", {"__name__": "elsewhere", "registry": registry})
    assert registry["one"] == 1
    with pytest.raises(UserError, match="unknown number 'oen': did you mean 'one'"):
        registry["oen"]
