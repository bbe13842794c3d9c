"""The extractors: trained, cached, found on disk, refused in one line."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gan_core import weights as published
from gan_core.data.examples import DataSpec, Examples, TensorSpec
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.metrics import classifier, pretrained
from gan_core.metrics.extractors import EXTRACTORS, create_extractor
from gan_core.metrics.numerics import exact_float32


def labelled(pixels: Tensor, labels: Tensor | None, classes: int, split: str) -> Examples:
    tensors = {"image": pixels}
    specs = {"image": TensorSpec(tuple(pixels.shape[1:]), -1, 1)}
    if labels is not None:
        tensors["label"] = labels
        specs["label"] = TensorSpec((), classes=classes)
    return Examples(tensors, DataSpec(specs), "drawings", split)  # type: ignore[arg-type]


def drawings(count: int, shape: tuple[int, int, int], seed: int = 0, split: str = "train"):
    """Pictures whose class is where they are bright: left, right or nowhere."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 120, (count, *shape), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % 3
    half = shape[2] // 2
    pixels[labels == 0, :, :, :half] += 110
    pixels[labels == 1, :, :, half:] += 110
    return labelled(pixels, labels, 3, split)


@pytest.fixture(scope="module")
def digits() -> tuple[Examples, Examples]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.RandomState(0).permutation(len(bunch.target))
    pixels = torch.from_numpy((bunch.images[order] * 255 / 16).astype(np.uint8))[:, None]
    labels = torch.from_numpy(bunch.target[order]).long()
    return (
        labelled(pixels[:1257], labels[:1257], 10, "train"),
        labelled(pixels[1257:], labels[1257:], 10, "test"),
    )


def test_the_registry_lists_three_with_a_line_each():
    assert list(EXTRACTORS) == ["classifier", "inception", "mobilenet_v2"]
    assert all(EXTRACTORS[n].summary and "\n" not in EXTRACTORS[n].summary for n in EXTRACTORS)
    with pytest.raises(UserError, match="did you mean 'inception'"):
        create_extractor("inceptoin", world=World())


def test_the_classifier_reads_digits_and_leaves_the_generators_alone(digits):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    extractor = create_extractor("classifier", world=World(), train=digits[0], test=digits[1])
    assert torch.equal(torch.get_rng_state(), before)
    assert extractor.test_accuracy >= 0.97
    largest = max(digits[1].tensors["label"].tolist().count(k) for k in range(10))
    assert extractor.guess == pytest.approx(largest / len(digits[1]))
    assert extractor.protocol["test accuracy"] == f"{extractor.test_accuracy:.4f}"
    images = digits[1].tensors["image"].float() / 127.5 - 1
    features, logits = extractor.features(images)
    assert features.shape == (540, 64)
    share = (logits.argmax(1) == digits[1].tensors["label"]).float().mean().item()
    assert share == pytest.approx(extractor.test_accuracy, abs=1e-6)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 20), (3, 128, 128), (1, 65, 65)])
def test_the_classifier_fits_any_size(shape):
    network = classifier.ClassifierNetwork(shape, 7)
    features, logits = network(torch.zeros(2, *shape))
    assert features.shape == (2, network.features)
    assert logits.shape == (2, 7)


def test_the_same_data_give_the_same_classifier_and_other_data_another():
    first = classifier.train_classifier(drawings(60, (1, 8, 8)), torch.device("cpu"))
    with torch.no_grad():
        again = classifier.train_classifier(drawings(60, (1, 8, 8)), torch.device("cpu"))
    other = classifier.train_classifier(drawings(60, (1, 8, 8), 1), torch.device("cpu"))
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True)
    )
    assert not torch.equal(first.head.weight, other.head.weight)


def test_a_cached_classifier_is_loaded_and_a_damaged_one_trained_again(
    tmp_path, monkeypatch, caplog
):
    trainings = []
    train = classifier.train_classifier
    monkeypatch.setattr(classifier, "train_classifier", lambda *a: trainings.append(1) or train(*a))
    examples, test = drawings(60, (1, 8, 8)), drawings(30, (1, 8, 8), 5, "test")

    def create():
        return create_extractor(
            "classifier", world=World(), train=examples, test=test, cache=tmp_path / "cache"
        )

    first, second = create(), create()
    assert len(trainings) == 1
    assert first.protocol == second.protocol
    images = torch.zeros(2, 1, 8, 8)
    assert torch.equal(first.features(images)[0], second.features(images)[0])

    (path,) = (tmp_path / "cache").iterdir()
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-3] ^= 64
    for number, damaged in enumerate((whole[: len(whole) // 2], bytes(flipped), b"")):
        path.write_bytes(damaged)
        caplog.clear()
        assert create().protocol == first.protocol
        assert str(path) in caplog.text
        assert create().protocol == first.protocol
        assert len(trainings) == number + 2, "trained again once, then found whole"


def test_a_cached_classifier_is_judged_by_the_present_test_split(tmp_path, monkeypatch):
    examples, easy = drawings(60, (1, 8, 8)), drawings(30, (1, 8, 8), 5, "test")
    labels = (easy.tensors["label"] + 1) % easy.spec.classes
    wrong = dataclasses.replace(easy, tensors={**easy.tensors, "label": labels})

    def create(test, cache):
        return create_extractor("classifier", world=World(), train=examples, test=test, cache=cache)

    fresh = create(wrong, None)
    first = create(easy, tmp_path)
    monkeypatch.setattr(classifier, "train_classifier", None)
    other, again = create(wrong, tmp_path), create(easy, tmp_path)
    assert other.test_accuracy == fresh.test_accuracy != first.test_accuracy
    assert other.protocol == fresh.protocol
    assert again.protocol == first.protocol


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    extractor = create_extractor(
        "classifier",
        world=World(),
        train=drawings(30, (1, 8, 8)),
        test=drawings(30, (1, 8, 8)),
        cache=tmp_path / "file",
    )
    assert extractor.features(torch.zeros(1, 1, 8, 8))[0].shape == (1, 64)
    assert "cannot keep" in caplog.text


def test_the_classifier_refuses_a_source_without_labels():
    bare = labelled(torch.zeros(9, 1, 8, 8, dtype=torch.uint8), None, 0, "train")
    with pytest.raises(UserError, match="'drawings' has none: choose mobilenet_v2 or inception"):
        create_extractor("classifier", world=World(), train=bare, test=bare)


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory):
    from torchvision.models import mobilenet_v2

    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        network = mobilenet_v2(weights=None).train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # exact statistics, so that features have a size
        network(torch.randn(4, 3, 96, 96))
        network.eval()
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(network.state_dict(), path)
    return network, path


def test_mobilenet_features_are_what_torchvision_computes(mobilenet):
    from torchvision.models import MobileNet_V2_Weights
    from torchvision.transforms import v2

    network, path = mobilenet
    torch.manual_seed(0)
    before = torch.get_rng_state()
    extractor = create_extractor("mobilenet_v2", world=World(), weights=path)
    assert torch.equal(torch.get_rng_state(), before)
    images = torch.rand(2, 1, 20, 20) * 2 - 1
    features, logits = extractor.features(images)
    assert logits is None
    preset = MobileNet_V2_Weights.IMAGENET1K_V1.transforms()
    resize = v2.Resize((224, 224), interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
    unit = resize((images.repeat(1, 3, 1, 1) + 1) / 2).clamp(0, 1)
    with torch.no_grad():
        network.classifier = nn.Identity()
        expected = network(v2.functional.normalize(unit, preset.mean, preset.std))
    assert expected.mean() > 0.1
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-3)


def test_mobilenet_is_found_inside_a_package_without_running_it(mobilenet, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    package = tmp_path / published._MOBILENET_PACKAGE
    (package / "weights").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "weights" / published.MOBILENET_FILE).symlink_to(mobilenet[1])
    monkeypatch.syspath_prepend(tmp_path)
    found = create_extractor("mobilenet_v2", world=World())
    given = create_extractor("mobilenet_v2", world=World(), weights=mobilenet[1])
    assert found.protocol == given.protocol


@pytest.mark.parametrize("name", ["mobilenet_v2", "inception"])
def test_weights_that_cannot_be_had_are_one_clear_line(name, tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError("no route to host\nreally")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(published, "_MOBILENET_PACKAGE", "no_such_package")
    with pytest.raises(UserError, match=r"no route to host.*--extractor-weights") as error:
        create_extractor(name, world=World())
    assert "\n" not in str(error.value)
    missing = tmp_path / "missing.pth"
    with pytest.raises(UserError, match=r"there is no file .*missing\.pth"):
        create_extractor(name, world=World(), weights=missing)
    missing.write_bytes(b"not weights")
    with pytest.raises(UserError, match=r"missing\.pth is not a whole file of PyTorch weights"):
        create_extractor(name, world=World(), weights=missing)
    torch.save({"a": torch.zeros(1)}, missing)
    with pytest.raises(UserError, match=f"weights of another network than {name}"):
        create_extractor(name, world=World(), weights=missing)


def test_inception_gives_torch_fidelitys_features(tmp_path, monkeypatch):
    from torch_fidelity import feature_extractor_inceptionv3 as fidelity

    with monkeypatch.context() as patch:
        patch.setattr(fidelity, "load_state_dict_from_url", lambda *_a, **_k: {})
        patch.setattr(nn.Module, "load_state_dict", lambda *_a, **_k: None)
        network = fidelity.FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048", "logits_unbiased"]
        )
    (tmp_path / "checkpoints").mkdir()
    torch.save(network.state_dict(), tmp_path / "checkpoints" / pretrained._INCEPTION_FILES[1])
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    extractor = create_extractor("inception", world=World())
    pixels = torch.randint(0, 256, (2, 1, 16, 16), dtype=torch.uint8)
    features, logits = extractor.features(pixels.float() / 127.5 - 1)
    expected_features, expected_logits = network(pixels.repeat(1, 3, 1, 1))
    assert features.shape == (2, 2048)
    torch.testing.assert_close(features, expected_features)
    torch.testing.assert_close(logits, expected_logits)


def test_exact_float32_switches_everything_off_and_back_on():
    cuda, cpu = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        outside = cuda.fp32_precision, cpu.fp32_precision
        autocast = torch.autocast("cpu", dtype=torch.bfloat16)
        with autocast, pytest.raises(KeyError), exact_float32():  # noqa: PT012
            inside = cuda.fp32_precision, cpu.fp32_precision
            product = torch.ones(2, 2) @ torch.ones(2, 2)
            raise KeyError
        assert inside == ("ieee", "ieee")
        assert product.dtype == torch.float32
        assert (cuda.fp32_precision, cpu.fp32_precision) == outside
        assert outside != ("ieee", "ieee")
    finally:
        torch.set_float32_matmul_precision(before)


def test_progress_is_logged(caplog):
    with caplog.at_level(logging.INFO, logger="gan_core"):
        create_extractor(
            "classifier",
            world=World(),
            train=drawings(30, (1, 8, 8)),
            test=drawings(30, (1, 8, 8)),
        )
    assert "training the classifier on 30 examples of drawings" in caplog.text
    assert "of the test split" in caplog.text
