"""CGAN from pictures to tags (Mirza and Osindero 2014, section 4.2), on pictures with tags.

    python -m benchmarks.picture_tags --data-root FOLDER [--pictures color --column tags]

A generator makes word vectors for a picture's features: both come from frozen networks
(MobileNetV2; a sentence encoder, which sees one tag at a time). For a held-out picture, 100 samples
vote for their 20 nearest tags each, and the 10 with the most votes are its tags, as in the paper,
which only shows examples. Here the share of these 10 that are among the picture's true tags is
counted, beside the 10 most frequent training tags for every picture (what must be beaten), and the
best that any 10 could do. The game is the program's own: variant, engine, noise.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.settings import read_settings
from gan_core.data.examples import Batch, DataSpec, Examples, TensorSpec, to_unit_range
from gan_core.data.listing import draw_splits
from gan_core.data.pictures import PictureFormat, common_format, read_pictures
from gan_core.data.texts import MINILM, create_encoder, default_folder, encode_texts
from gan_core.engine.game import Game, seed_rank
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.exit_codes import exit_code
from gan_core.layers.init import uniform_weights
from gan_core.layers.maxout import Maxout
from gan_core.metrics.cache import load_tensors, save_tensors
from gan_core.metrics.extractors import create_extractor
from gan_core.options import option
from gan_core.variants.adversarial import Term, default
from gan_core.variants.perceptron import PerceptronOptions, PerceptronVariant

SAMPLES, NEAREST, TAGS = 100, 20, 10


@dataclasses.dataclass(frozen=True)
class TagOptions(PerceptronOptions):
    """Section 4.2's layers: the defaults are the paper's."""

    prior: str = default("prior", "gaussian")
    lr_decay: float = default("lr_decay", 1.00004, PerceptronOptions)
    wrong_picture: float = option(
        0.0,
        "weight of the discriminator's loss for true tags beside another picture (Reed et al. "
        "2016); 0 in the paper",
        kind="schedule",
        minimum=0,
    )
    hidden_latent: int = option(500, "generator's units for the noise", minimum=1)
    hidden_picture: int = option(2000, "generator's units for the picture", minimum=1)
    hidden_tag: int = option(500, "discriminator's units for the tag", minimum=1)
    hidden_picture_d: int = option(1200, "discriminator's units for the picture", minimum=1)
    maxout_units: int = option(1000, "discriminator's maxout units of 3 pieces", minimum=1)


class Generator(nn.Module):
    """Latent (N, latent) and a picture's features (N, F) to a tag's vector (N, d)."""

    def __init__(self, options: TagOptions, data: DataSpec) -> None:
        super().__init__()
        self.from_latent = nn.Linear(options.latent, options.hidden_latent)
        self.from_picture = nn.Linear(data.tensors["picture"].shape[0], options.hidden_picture)
        hidden = options.hidden_latent + options.hidden_picture
        self.output = nn.Linear(hidden, data.target_shape[0])
        uniform_weights(self, 0.05)

    def forward(self, latent: Tensor, picture: Tensor) -> Tensor:
        parts = (self.from_latent(latent), self.from_picture(picture))
        return self.output(F.relu(torch.cat(parts, dim=1)))


class Discriminator(nn.Module):
    """A tag's vector (N, d) and a picture's features (N, F) to logits (N, 1)."""

    def __init__(self, options: TagOptions, data: DataSpec) -> None:
        super().__init__()
        self.from_tag = nn.Linear(data.target_shape[0], options.hidden_tag)
        self.from_picture = nn.Linear(data.tensors["picture"].shape[0], options.hidden_picture_d)
        hidden = options.hidden_tag + options.hidden_picture_d
        self.joint = Maxout(hidden, options.maxout_units, pieces=3)
        self.output = nn.Linear(options.maxout_units, 1)
        uniform_weights(self, 0.05)

    def forward(self, tag: Tensor, picture: Tensor) -> Tensor:
        parts = torch.cat((self.from_tag(tag), self.from_picture(picture)), dim=1)
        return self.output(self.joint(F.relu(parts)))


class TagCGAN(PerceptronVariant):
    """CGAN whose target is a tag's vector and whose condition is a picture's features."""

    name = "tag-cgan"
    summary = "from a picture's features to the vector of one of its tags"
    paper = "Mirza and Osindero 2014, arXiv:1411.1784"
    targets = frozenset({"tag"})
    needs = frozenset({"picture"})
    Options = TagOptions
    conditional = True

    def conditions(self) -> tuple[str, ...]:
        return ("picture",)

    def discriminator_terms(self, real: Tensor, fake: Tensor, batch: Batch) -> list[Term]:
        weight = self.recipe.wrong_picture
        if weight == 0:
            return []
        # The batch is in shuffled order: its next example is of another picture.
        wrong = {**batch, "picture": batch["picture"].roll(1, 0)}
        logits = self.discriminate(batch[self.target], wrong)
        return [("loss/wrong_picture", F.softplus(logits).mean(), weight)]

    def make_generator(self, data: DataSpec) -> nn.Module:
        return Generator(self.recipe, data)

    def make_discriminator(self, data: DataSpec) -> nn.Module:
        return Discriminator(self.recipe, data)


# -- data ------------------------------------------------------------------------------------------


def read_tags(path: Path, name_column: str, tag_column: str) -> dict[str, list[str]]:
    """The tags of each file name that has any, from a CSV file with tags between commas."""
    if not path.is_file():
        raise UserError(f"no file {path}: give its folder with --data-root, its name with --table")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        for column in (name_column, tag_column):
            if column not in (rows.fieldnames or ()):
                raise UserError(f"{path} has no column '{column}'")
        found = {}
        for row in rows:
            tags = list(dict.fromkeys(t.strip().lower() for t in row[tag_column].split(",")))
            found[row[name_column]] = [tag for tag in tags if tag]
    return {name: tags for name, tags in sorted(found.items()) if tags}


def picture_features(
    paths: Sequence[str], world: World, cache: Path, weights: Path | None = None
) -> Tensor:
    """MobileNetV2's features (N, 1280) of the pictures ``paths``, kept by content."""
    form, shape = common_format(
        paths, channels=3, image_size=None, allow_upscale=False, skip_bad=False
    )
    assert isinstance(form, PictureFormat)
    images, _ = read_pictures(paths, form, shape, skip_bad=False)
    spec = DataSpec({"image": TensorSpec(shape, -1.0, 1.0)})
    extractor = create_extractor("mobilenet_v2", world=world, weights=weights)
    key = Examples({"image": images}, spec, "tags").fingerprint
    path = cache / f"features-{key}-{extractor.fingerprint}.safetensors"
    found = load_tensors(path)
    if found is None:
        parts = [extractor.features(to_unit_range(part))[0] for part in images.split(256)]
        save_tensors(path, {"features": torch.cat(parts)}, {"extractor": str(extractor)})
        return torch.cat(parts)
    return found[0]["features"]


def tag_examples(features: Tensor, places: Sequence[tuple[int, int]], vectors: Tensor) -> Examples:
    """An example for each (picture, tag) of ``places``: the tag's vector and the features."""
    pictures, tags = torch.tensor(places).unbind(1)
    tensors = {"tag": vectors[tags], "picture": features[pictures]}
    specs = {name: TensorSpec(tuple(t.shape[1:])) for name, t in tensors.items()}
    return Examples(tensors, DataSpec(specs, "tag"), "tags")


# -- the vote --------------------------------------------------------------------------------------


def vote(samples: Tensor, vocabulary: Tensor) -> list[int]:
    """The 10 tags with the most votes, of ``samples`` (S, d) for ``vocabulary`` (V, d).

    Each sample votes for the 20 tags nearest to it by cosine; equal votes are decided by the
    sum of cosines, then by the tag's number, so that the result follows from the samples.
    """
    cosines = F.normalize(samples, dim=1) @ F.normalize(vocabulary, dim=1).t()
    nearest = cosines.topk(min(NEAREST, len(vocabulary)), dim=1).indices
    votes = torch.bincount(nearest.flatten(), minlength=len(vocabulary)).tolist()
    sums = cosines.sum(0).tolist()
    ranked = sorted(range(len(vocabulary)), key=lambda tag: (-votes[tag], -sums[tag], tag))
    return ranked[:TAGS]


def precision(chosen: Sequence[Sequence[int]], true: Sequence[set[int]]) -> float:
    """The mean share of the chosen tags that are true ones."""
    shares = [len(set(c) & t) / len(c) for c, t in zip(chosen, true, strict=True)]
    return sum(shares) / len(shares)


def most_frequent(places: Sequence[tuple[int, int]], tags: int) -> list[int]:
    """The 10 tags that most training pictures have; equal ones by number."""
    counts = torch.bincount(torch.tensor([tag for _, tag in places]), minlength=tags).tolist()
    return sorted(range(tags), key=lambda tag: (-counts[tag], tag))[:TAGS]


def choose(game: Game, features: Tensor, vocabulary: Tensor, seed: int) -> list[list[int]]:
    """The game's tags for each of the pictures with ``features`` (N, F)."""
    sampler = game.sampler(seed=seed)
    found = []
    for number, picture in enumerate(features):
        index = torch.arange(SAMPLES) + number * SAMPLES
        conditions = {"picture": picture.expand(SAMPLES, -1).to(sampler.device)}
        found.append(vote(sampler(index, conditions=conditions)["tag"].cpu(), vocabulary))
    return found


# -- the whole -------------------------------------------------------------------------------------


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, required=True, help="folder of CSV and pictures")
    parser.add_argument("--table", default="captions.csv", help="the CSV file in it")
    parser.add_argument("--pictures", default=".", help="folder of the pictures in it")
    parser.add_argument("--file-column", default="file_name")
    parser.add_argument("--column", default="tags", help="column of tags, with commas")
    parser.add_argument("--text-encoder", default=MINILM)
    parser.add_argument("--extractor-weights", type=Path, help="MobileNetV2's file")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--share", type=float, default=0.25, help="of the paper's hidden units")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--out", type=Path, default=Path("runs/picture_tags"))
    parser.add_argument("--set", nargs="*", default=[], help="other options, as name=value")
    return parser.parse_args()


def main() -> None:
    """Train, vote, print the figures."""
    arguments = parse_arguments()
    world = World.current(None)

    table = read_tags(
        arguments.data_root / arguments.table, arguments.file_column, arguments.column
    )
    names = list(table)
    drawn = draw_splits(names, ["validation", "test"])
    folder = arguments.data_root / arguments.pictures
    paths, cache = [str(folder / name) for name in names], arguments.out / "cache"
    features = picture_features(paths, world, cache, arguments.extractor_weights)
    train = [i for i, name in enumerate(names) if drawn[name] == "train"]
    mean, deviation = features[train].mean(0), features[train].std(0).clamp_min(1e-6)
    features = (features - mean) / deviation

    # Tags that no training picture has can be in no training example, so nobody can choose them;
    # they do count as true.
    words = sorted({tag for tags in table.values() for tag in tags})
    number = {word: i for i, word in enumerate(words)}
    vectors = encode_texts(words, create_encoder(arguments.text_encoder), default_folder())
    places = [(i, number[tag]) for i in train for tag in table[names[i]]]
    # Without this the mean of all words is near to some words, which then get votes everywhere.
    vectors = vectors - vectors[[tag for _, tag in places]].mean(0)
    known = sorted({tag for _, tag in places})
    judged = [i for i, name in enumerate(names) if drawn[name] == arguments.split]
    true = [{number[tag] for tag in table[names[i]]} for i in judged]
    examples = tag_examples(features, places, vectors)

    frequent = most_frequent(places, len(words))
    best = sum(min(TAGS, len(t & set(known))) / TAGS for t in true) / len(true)
    report = {
        "pictures": len(judged),
        "split": arguments.split,
        "vocabulary": len(known),
        "training pairs": len(places),
        "baseline": precision([frequent] * len(true), true),
        "best possible": best,
        "steps": arguments.steps,
        "share": arguments.share,
    }
    for seed in arguments.seeds:
        variant = build(examples.spec, arguments, seed)
        batch_size = variant.options.batch_size
        game = Game(variant, examples, examples, batch_size=batch_size, seed=seed, world=world)
        seed_rank(seed, world)
        while not game.finished:
            game.play(500)
            noted = {n: round(v, 3) for n, v in game.take_diagnostics().items()}
            print(f"seed {seed}, {game.step} of {game.steps}: {noted}", flush=True)
        chosen = choose(game, features[judged], vectors[known], seed)
        report[f"cgan, seed {seed}"] = precision([[known[t] for t in c] for c in chosen], true)
        for place in range(0, len(judged), max(1, len(judged) // 6)):
            told = [words[known[tag]] for tag in chosen[place]]
            print(f"  {names[judged[place]]} {table[names[judged[place]]]}: {told}")
    print(json.dumps(report, indent=1))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "result.json").write_text(json.dumps(report, indent=1) + "\n")


def build(spec: DataSpec, arguments: argparse.Namespace, seed: int) -> TagCGAN:
    """The variant for data of ``spec``, with initial weights from ``seed``."""
    from gan_core.options import parse

    paper = TagOptions()
    widths = ("hidden_latent", "hidden_picture", "hidden_tag", "hidden_picture_d", "maxout_units")
    scaled = {n: max(8, round(getattr(paper, n) * arguments.share)) for n in widths}
    given = read_settings(arguments.set)
    values = {"steps": arguments.steps, "optimizer": "adam", **scaled, **given}
    variant = TagCGAN(parse(TagOptions, values))
    variant.check(spec)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        variant.build(spec)
    return variant


if __name__ == "__main__":
    sys.exit(exit_code(main))
