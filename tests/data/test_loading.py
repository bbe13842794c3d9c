from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gan_core import UserError
from gan_core.data import (
    SOURCES,
    DataSpec,
    Examples,
    Source,
    TensorSpec,
    check_examples,
    create_source,
    load_examples,
    source_options,
)
from gan_core.data.loading import source_options_class
from gan_core.data.sources import picture_spec

BUILT_IN = {
    "cifar10",
    "cifar100",
    "digits",
    "fashion-mnist",
    "folder",
    "grid",
    "mnist",
    "ring",
    "stl10",
    "svhn",
}


def refusal(*arguments, **options) -> str:
    with pytest.raises(UserError) as caught:
        load_examples(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def labelled(count: int = 12, classes: int = 3) -> Examples:
    tensors = {
        "image": torch.zeros(count, 1, 4, 4, dtype=torch.uint8),
        "label": torch.arange(count) % classes,
    }
    return Examples(tensors, picture_spec((1, 4, 4), ("a", "b", "c")[:classes]), "letters")


def points(values: torch.Tensor) -> Examples:
    spec = DataSpec({"point": TensorSpec((2,), -1.0, 1.0)}, target="point")
    return Examples({"point": values}, spec, "points")


def complaint(examples: Examples, batch_size: int = 4) -> str:
    with pytest.raises(UserError) as caught:
        check_examples(examples, batch_size=batch_size)
    return str(caught.value)


def test_every_built_in_source_is_registered_with_a_line_of_explanation():
    assert set(SOURCES) >= BUILT_IN
    for name in BUILT_IN:
        assert 10 < len(SOURCES[name].summary) < 80
        assert "\n" not in SOURCES[name].summary
        assert SOURCES[name].__doc__


def test_importing_the_sources_imports_no_heavy_library():
    code = (
        "import sys, gan_core.data;"
        "print([m for m in ('torchvision', 'sklearn', 'scipy', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_source_is_answered_with_the_nearest():
    assert refusal("digit", None, "train") == "unknown data source 'digit': did you mean 'digits'?"


def test_an_unknown_split_is_refused():
    assert "unknown split 'training': did you mean 'train'?" in refusal("digits", None, "training")


def test_a_source_that_needs_a_root_says_so():
    assert "--data mnist needs --data-root" in refusal("mnist", None, "train")


def test_a_root_that_does_not_exist_is_named(tmp_path):
    assert f"no folder {tmp_path / 'x'}" in refusal("cifar10", tmp_path / "x", "train")


def test_the_home_folder_and_relative_paths_are_expanded(tmp_path, monkeypatch):
    (tmp_path / "pictures").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for root in ("~/pictures", "pictures", Path("pictures")):
        assert create_source("folder", root).root == tmp_path / "pictures"


def test_train_and_validation_together_are_one_after_the_other():
    parts = [load_examples("digits", None, split) for split in ("train", "validation")]
    both = load_examples("digits", None, "train+validation")
    assert both.split == "train+validation"
    for name, tensor in both.tensors.items():
        assert torch.equal(tensor, torch.cat([part.tensors[name] for part in parts]))


def test_the_options_of_a_source_are_its_constructors():
    assert source_options("digits") == {"on_bad_file": (str, "error")}
    assert source_options("folder") == {
        "on_bad_file": (str, "error"),
        "image_size": (int, None),
        "channels": (int, None),
        "allow_upscale": (bool, False),
        "picture_cache": (str, None),
    }
    assert source_options("mnist")["download"] == (bool, False)


def test_every_option_of_a_source_says_what_it_means(monkeypatch: pytest.MonkeyPatch):
    told = {}
    for source in SOURCES:
        for field in dataclasses.fields(source_options_class(source)):
            told[source, field.name] = field.metadata["help"]
    assert [key for key, text in told.items() if not text or text == f"of {key[0]}"] == []
    assert told["folder", "channels"] == "1 gray, 3 colour; not given: colour if any picture is"

    class Plain(Source):
        def __init__(self, root: Path | None = None, *, shade: float = 0.5) -> None:
            super().__init__(root)

        def load(self, split):
            raise NotImplementedError

    monkeypatch.setitem(SOURCES._entries, "plain", Plain)
    (field,) = dataclasses.fields(source_options_class("plain"))
    assert (field.name, field.type, field.default) == ("shade", float, 0.5)
    assert field.metadata["help"] == "of plain"


def test_an_option_of_another_source_is_refused():
    message = refusal("digits", None, "train", image_size=8)
    assert message == (
        "unknown option of data source 'digits' 'image_size': choose from: on_bad_file"
    )


def test_a_users_own_source_is_created_with_its_options_in_their_types(monkeypatch):
    class Constant(Source):
        needs_root = False

        def __init__(self, root: Path | None = None, *, count: int = 3, value: float = 0.5):
            super().__init__(root)
            self.count, self.value = count, value

        def load(self, split):
            return points(torch.full((self.count, 2), self.value))

    monkeypatch.setitem(SOURCES._entries, "constant", Constant)
    examples = load_examples("constant", None, "train", count="5", value="0.25")
    assert torch.equal(examples.tensors["point"], torch.full((5, 2), 0.25))
    both = load_examples("constant", None, "train+validation")
    assert len(both) == 6


def test_good_examples_pass_and_exactly_one_batch_is_enough():
    check_examples(labelled(12), batch_size=12)
    check_examples(points(torch.tensor([[1.0, -1.0]])), batch_size=1)


def test_fewer_examples_than_a_batch_are_refused():
    assert "holds 12 examples, fewer than one batch of 13" in complaint(labelled(12), 13)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused_with_their_position(value):
    values = torch.zeros(8, 2)
    values[5, 1] = value
    assert "not finite (NaN or inf) at position 5" in complaint(points(values))


def test_values_outside_the_range_of_the_specification_are_refused():
    values = torch.zeros(8, 2)
    values[3, 0] = 1.5
    assert "leaves -1..1 at position 3" in complaint(points(values))


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_out_of_range_is_refused(label):
    examples = labelled()
    examples.tensors["label"][7] = label
    assert f"is {label} at position 7, out of range 0..2" in complaint(examples)


def test_a_class_without_training_examples_is_named():
    examples = labelled()
    examples.tensors["label"][:] = torch.arange(12) % 2
    assert "no example of class 2 ('c')" in complaint(examples)
    check_examples(dataclasses.replace(examples, split="test"), batch_size=4)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("image", torch.zeros(12, 1, 4, 5, dtype=torch.uint8), "has the shape (12, 1, 4, 5)"),
        ("image", torch.zeros(12, 1, 4, 4, dtype=torch.float64), "is torch.float64"),
        (
            "image",
            torch.zeros(12, 1, 4, 4),
            "is torch.float32, not torch.uint8: give pictures as pixels of 0..255",
        ),
        ("label", torch.zeros(12, dtype=torch.int32), "is torch.int32, not torch.int64"),
        ("label", torch.zeros(11, dtype=torch.int64), "has the shape (11,), not (12,)"),
        ("label", torch.zeros(12, 1, dtype=torch.int64), "has the shape (12, 1), not (12,)"),
    ],
)
def test_a_tensor_unlike_its_specification_is_refused(name, tensor, message):
    examples = labelled()
    wrong = dataclasses.replace(examples, tensors={**examples.tensors, name: tensor})
    assert message in complaint(wrong)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (None, None), (-1.0, 2.0)])
def test_pictures_have_the_bounds_that_extractors_take_them_to_have(bounds):
    examples = labelled()
    spec = TensorSpec((1, 4, 4), *bounds)
    specs = {**examples.spec.tensors, "image": spec}
    for values in (torch.zeros(12, 1, 4, 4), torch.zeros(12, 1, 4, 4, dtype=torch.uint8)):
        tensors = {**examples.tensors, "image": values}
        changed = dataclasses.replace(examples.spec, tensors=specs)
        told = complaint(dataclasses.replace(examples, spec=changed, tensors=tensors))
        assert f"is a picture by its name and shape, with the bounds {bounds[0]} and" in told
        assert "give it TensorSpec((1, 4, 4), -1.0, 1.0) and pixels of 0..255" in told


def test_a_tensor_with_a_gradient_is_refused():
    values = torch.zeros(8, 2, requires_grad=True)
    assert "'point' in " in (told := complaint(points(values)))
    assert told.endswith("requires a gradient: give it detached")


def test_a_promised_tensor_that_is_missing_is_named():
    examples = labelled()
    wrong = dataclasses.replace(examples, tensors={"image": examples.tensors["image"]})
    assert "no tensor 'label'" in complaint(wrong)


def test_arrays_and_lists_are_told_to_be_made_tensors():
    for name, values, kind in (("image", labelled().tensors["image"].numpy(), "ndarray"),
                               ("label", ["a", "b", "c"] * 4, "list")):  # fmt: skip
        examples = labelled()
        wrong = dataclasses.replace(examples, tensors={**examples.tensors, name: values})
        told = f"'{name}' in the train split of 'letters' is a {kind}, not a torch.Tensor: make it"
        assert complaint(wrong).startswith(told)


def test_a_target_without_a_specification_is_named():
    examples = points(torch.zeros(8, 2))
    spec = DataSpec(examples.spec.tensors)  # whose target is a picture, as nothing else is said
    told = "the train split of 'points' has no specification of its target 'image', but of point"
    assert complaint(dataclasses.replace(examples, spec=spec)).startswith(told)
