"""Modules of one's own, named by --plugin: what they register can be chosen, and their mistakes
are answered in a line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from torch import Tensor, nn

import gan_core.metrics.extractors
import gan_core.variants  # noqa: F401
from gan_core.config import check_resumable, import_plugins, make_config, read_config
from gan_core.data.examples import DataSpec, Examples, Split, TensorSpec
from gan_core.data.loading import create_source, load_examples
from gan_core.data.sources import SOURCES, Source
from gan_core.engine.checkpoint import find_checkpoint
from gan_core.engine.game import Game
from gan_core.engine.world import World
from gan_core.errors import UserError
from gan_core.losses import LOSSES, UNPAIRED, AdversarialLoss, linear_generator
from gan_core.metrics.features import EXTRACTORS
from gan_core.observers import FolderObserver, Observer
from gan_core.options import parse
from gan_core.run import play
from gan_core.variant import VARIANTS
from gan_core.variants.adversarial import AdversarialOptions, AdversarialVariant
from pipelines.__main__ import main
from pipelines.study import GanStudy
from tune_spaces import space_of

LOSS = """
import torch
from gan_core.losses import LOSSES, AdversarialLoss

def ours(real, fake):
    return torch.exp(-real / 2).mean() + torch.exp(fake / 2).mean()

def theirs(fake, real=None):
    return torch.exp(-fake / 2).mean()

LOSSES.register("boosting")(AdversarialLoss("the exponential loss", ours, theirs))
"""
EXTRACTOR = """
import torch
from gan_core.metrics.features import EXTRACTORS, Extractor

@EXTRACTORS.register("corners")
class Corners(Extractor):
    name = "corners"
    summary = "the pixels of a corner"

    @classmethod
    def create(cls, setup):
        return cls(torch.nn.Identity(), {"size": "3"}, setup.world.device)

    def forward(self, images):
        return images[:, 0, 2:5, 2:5].flatten(1), None
"""
VARIANT = """
import dataclasses
from typing import Literal
from torch import nn
from gan_core.variant import register
from gan_core.variants.adversarial import AdversarialOptions, AdversarialVariant

@dataclasses.dataclass(frozen=True)
class Options(AdversarialOptions):
    {field}

@register("mine")
class Mine(AdversarialVariant):
    summary = "two lines"
    targets = frozenset({{"point"}})
    Options = Options

    def make_generator(self, data):
        return nn.Linear(self.options.latent, data.target_shape[0])

    def make_discriminator(self, data):
        return nn.Linear(data.target_shape[0], 1)
"""
Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module of that name; what is registered from then on is forgotten again."""
    registries: list[Any] = [VARIANTS, SOURCES, LOSSES, EXTRACTORS]
    before = [dict(registry._entries) for registry in registries]
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    names: list[str] = []

    def forget() -> None:
        for registry, entries in zip(registries, before, strict=True):
            registry._entries = dict(entries)
        for name in names:
            sys.modules.pop(name, None)

    def enter(name: str, text: str) -> None:
        forget()
        names.append(name)
        (tmp_path / f"{name}.py").write_text(text)

    yield enter
    forget()


def answer(capsys: pytest.CaptureFixture[str], line: str) -> str:
    """What is said, whichever way, to the command ``line``."""
    capsys.readouterr()
    main(line.split())
    said = capsys.readouterr()
    return said.out + said.err


def test_a_loss_of_ones_own_is_chosen_by_its_name(
    write: Write, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write("own_loss", LOSS)
    line = "train gan --plugin own_loss --data ring --loss boosting --steps 3 --workers 0 --name b"
    assert main(line.split()) == 0
    assert "loss: boosting" in (tmp_path / "runs" / "b" / "config.yaml").read_text()
    assert "boosting" in answer(capsys, "train lapgan --plugin own_loss --help")
    assert "boosting" in UNPAIRED
    assert "the exponential loss" in answer(capsys, "list --plugin own_loss")
    assert "did you mean 'boosting'?" in answer(capsys, "train gan --loss bosting")


def test_an_extractor_of_ones_own_judges_a_run_and_what_it_made(
    write: Write, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write("own_extractor", EXTRACTOR)
    line = "train gan --plugin own_extractor --data digits --extractor corners --samples 60"
    assert main(f"{line} --steps 3 --workers 0 --name e".split()) == 0
    summary = json.loads((tmp_path / "runs" / "e" / "summary.json").read_text())
    assert summary["best"]["metric"] == "fid_corners"
    assert "corners" in answer(capsys, "list --plugin own_extractor")
    write("nothing_else", "")  # as in a new process: the plugin is yet to be imported
    assert "corners" not in EXTRACTORS
    main(["evaluate", "e", "--extractor", "corners", "--samples", "60"])
    assert "fid_corners" in capsys.readouterr().out
    write("nothing_else", "")
    assert main(["sample", "e", "--n", "2", "--neighbours", "2", "--extractor", "corners"]) == 0
    assert "unknown --extractor 'corner': did you mean" in answer(
        capsys, "sample e --extractor corner"
    )


WRONG_EXTRACTORS = {
    "a name": (
        'name = "corners"',
        'name = "edges"',
        "extractor 'corners' has the name 'edges', by w",
    ),
    "no name": ('name = "corners"', "", "extractor 'corners' has the name '', by which"),
    "nothing": (
        "return cls(",
        "print(",
        "`create` of extractor 'corners' gave NoneType: it must re",
    ),
    "no pair": (".flatten(1), None", ".flatten(1)", "'corners' must return features and logits"),
    "maps": (".flatten(1), None", ", None", "gave features of the shape (500, 3, 3) for 500"),
}


@pytest.mark.parametrize("what", WRONG_EXTRACTORS)
def test_an_extractor_that_gives_something_else_is_told(
    write: Write, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    right, wrong, expected = WRONG_EXTRACTORS[what]
    write("wrong", EXTRACTOR.replace(right, wrong))
    line = "train gan --plugin wrong --data digits --extractor corners --samples 60 --steps 3"
    said = answer(capsys, f"{line} --workers 0 --name e")
    assert expected in said.splitlines()[-1]


def test_options_need_no_more_than_a_type_and_a_default(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    write("plain", VARIANT.format(field="width: int = 8"))
    said = answer(capsys, "train mine --plugin plain --data ring --help")
    assert "--width N                 (default: 8)" in said
    assert make_config({"variant": "mine", "data": "ring", "width": "9"}).options["width"] == 9
    assert "--width must be a whole number" in answer(capsys, "train mine --data ring --width x")


def test_a_literal_says_which_words_an_option_takes(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    write("words", VARIANT.format(field='turn: Literal["left", "right", 3] | None = None'))
    assert "--turn left|right|3" in answer(capsys, "train mine --plugin words --data ring --help")
    assert "'lefd': did you mean 'left'?" in answer(capsys, "train mine --data ring --turn lefd")
    cls: Any = VARIANTS["mine"].Options
    assert [parse(cls, {"turn": t}).turn for t in ("right", "3", 3, None)] == ["right", 3, 3, None]


@pytest.mark.parametrize("name", ["samples", "name", "plugin", "resume"])
def test_an_option_named_like_one_of_every_run_is_refused(
    write: Write, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    write("clashing", VARIANT.format(field=f"{name}: int = 8"))
    expected = f"the option --{name} of variant 'mine' has the name of one that every run has"
    assert expected in answer(capsys, "train mine --plugin clashing --data ring --workers 0")
    with pytest.raises(UserError, match=expected):
        make_config({"variant": "mine", "data": "ring"})


BROKEN = {
    "no Python": ("x = 1\ndef f(:", "SyntaxError: invalid syntax", 2),
    "an unknown name": ("x = 1\n\nraise_it", "NameError: name 'raise_it' is not defined", 3),
    "a module that it lacks": ("import no_such_thing", "No module named 'no_such_thing'", 1),
    "a taken name": (
        'from gan_core.variant import register\n\nregister("gan")(type("A", (), {}))',
        "ValueError: variant 'gan' is registered already",
        26,
    ),
}


def test_options_that_are_no_dataclass_are_told(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    text = VARIANT.format(field="width: int = 8")
    write("bare", text.replace("@dataclasses.dataclass(frozen=True)\n", ""))
    told = "options of variant 'mine' are no dataclass: put @dataclasses.dataclass(frozen=True) bef"
    assert told in answer(capsys, "train mine --plugin bare --data ring --width 4")
    write("no_own", VARIANT.format(field="pass").replace("@dataclasses.dataclass(frozen=True)", ""))
    assert "--latent" in answer(capsys, "train mine --plugin no_own --data ring --help")


UNUSABLE = {
    'register_variant("a")(type("A", (Variant,), {"build": None}))': (
        "variant 'a' lacks noise, sample, stages: write what is missing"
    ),
    'register_source("a")(type("A", (Source,), {}))': (
        "data source 'a' lacks load: write what is missing"
    ),
    'register_extractor("a")(type("A", (Extractor,), {"forward": None}))': (
        "extractor 'a' lacks create: write what is missing"
    ),
    "register_variant(Variant)": 'Variant is registered as a variant without a name: give ("NAME")',
    'register_source("a/b")': (
        "the name 'a/b' of a data source must be of letters, digits, '.', '-' and '_', a letter or "
        "digit first: folders and protocols are called by it"
    ),
    'register_variant("")': (
        "the name '' of a variant must be of letters, digits, '.', '-' and '_', a letter or digit "
        "first: folders and protocols are called by it"
    ),
    'register_loss("a")(len)': ("loss 'a' is a builtin_function_or_method, not an AdversarialLoss"),
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_what_cannot_be_used_is_not_registered(
    write: Write, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    write("unusable", f"from gan_core import *\n{what}\n")
    assert answer(capsys, "train gan --plugin unusable") == f"error: {UNUSABLE[what]}\n"


def test_a_mistake_told_by_others_is_placed_where_they_were_called(
    write: Write, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    taken = "from gan_core.variant import register\n\nregister('gan')(type('A', (), {}))"
    unordered = (
        "import dataclasses\nfrom gan_core import *\n\n@dataclasses.dataclass(frozen=True)\n"
        "class A(GameOptions):\n    x: int"
    )
    for text, line in ((taken, 3), (unordered, 4)):
        write("placed", text)
        said = answer(capsys, "train gan --plugin placed")
        assert f"({tmp_path}/placed.py, line {line})" in said


def test_of_an_installed_plugin_too_the_place_is_its_own(
    write: Write,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("gan_core.config._PYTHONS", tmp_path)  # where no environment is virtual
    (tmp_path / "site-packages").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    taken = "from gan_core.variant import register\n\nregister('gan')(type('A', (), {}))"
    write("site-packages/installed", taken)
    said = answer(capsys, "train gan --plugin installed")
    sys.modules.pop("installed", None)
    assert f"({tmp_path}/site-packages/installed.py, line 3)" in said


@pytest.mark.parametrize("what", BROKEN)
def test_a_plugin_that_fails_is_told_with_its_place(
    write: Write, capsys: pytest.CaptureFixture[str], what: str, tmp_path: Path
) -> None:
    text, expected, line = BROKEN[what]
    write("broken", text)
    said = answer(capsys, "train gan --plugin broken")
    assert said.startswith("error: --plugin broken cannot be imported: ")
    assert said.count("\n") == 1
    assert expected in said
    if what != "a taken name":
        assert f"({tmp_path}/broken.py, line {line})" in said


def test_a_plugin_is_a_module_and_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("tiny.py", "./tiny.py"):
        assert "leave out .py (--plugin tiny)" in answer(capsys, f"train gan --plugin {word}")


class Unfinished(Source):
    """A source whose method is still to be written."""

    needs_root = False

    def load(self, split: Split) -> Examples: ...  # type: ignore[empty-body]


class Demanding(Unfinished):
    """A source with an option that has no default."""

    def __init__(self, root: Path | None = None, *, count: int) -> None:
        super().__init__(root)


def test_an_unfinished_source_is_named(write: Write) -> None:
    SOURCES.register("unfinished")(Unfinished)
    SOURCES.register("demanding")(Demanding)
    with pytest.raises(UserError, match="'unfinished' gave NoneType for its train split"):
        load_examples("unfinished", None, "train+validation")
    with pytest.raises(UserError, match="the option 'count' of data source 'demanding' has no def"):
        load_examples("demanding", None, "train")
    write("nothing", "")


class Deep(Unfinished):
    """A source whose options have numbers to choose from."""

    def __init__(
        self,
        root: Path | None = None,
        *,
        depth: Annotated[Literal[8, 16], "bits of a sample"] = 8,
        rate: Literal[1, 2] | None = None,
    ) -> None:
        super().__init__(root)
        self.depth, self.rate = depth, rate


@pytest.mark.usefixtures("write")
def test_an_option_of_a_source_may_choose_among_numbers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    SOURCES.register("deep")(Deep)
    assert answer(capsys, "train gan --data deep --depth 7") == (
        "error: unknown --depth '7': choose from: 16, 8\n"
    )
    main(["train", "gan", "--data", "deep", "--help"])
    told = capsys.readouterr().out
    assert re.search(r"--depth 8\|16 +bits of a sample \(default: 8\)", told)
    assert "--rate 1|2" in told
    for given in ("16", 16):
        source: Any = create_source("deep", depth=given, rate="2")
        assert (source.depth, source.rate) == (16, 2)
    source = create_source("deep")
    assert (source.depth, source.rate) == (8, None)


class Lines(AdversarialVariant):
    """Two lines, that see real and fake apart."""

    targets = frozenset({"point"})
    one_pass = False

    def make_generator(self, data: DataSpec) -> nn.Module:
        return nn.Linear(self.options.latent, 2)

    def make_discriminator(self, data: DataSpec) -> nn.Module:
        return nn.Linear(2, 1)


def test_the_share_of_a_variant_of_two_passes_is_checked_before_its_networks_are_made() -> None:
    for given in ({"r1": 1.0}, {"loss": "wasserstein"}):
        variant = Lines(Lines.Options(penalty_stride=2, **given))
        variant.check_share(4)
        with pytest.raises(UserError, match="--penalty-stride 2 leaves 1 of a worker's examples"):
            variant.check_share(2)
    Lines(Lines.Options(penalty_stride=2)).check_share(2)  # nothing to take some of


def test_a_lipschitz_loss_of_ones_own_is_treated_as_one() -> None:
    from gan_core.diagnostics import non_convergence
    from gan_core.diagnostics.findings import Facts
    from gan_core.diagnostics.history import History

    critic = AdversarialLoss("as WGAN's", lambda r, f: f.mean(), linear_generator, lipschitz=True)
    LOSSES.register("critic")(critic)
    try:
        history = History()
        for step in (10, 20, 30):
            history.add(step, {"loss/discriminator": -200.0})
        for name, levels in (("critic", set()), ("hinge", {2})):
            signs = non_convergence.examine(history, Facts(options={"loss": name}))
            assert {s.level for s in signs if "loss/" in s.text} - {0} == levels, name
        dcgan = parse(VARIANTS["dcgan"].Options, {"loss": "critic"})
        assert dcgan.penalty_weight == 10
        bare = parse(VARIANTS["lapgan"].Options, {"loss": "critic", "gradient_penalty": 0})
        lapgan = VARIANTS["lapgan"](bare)
        spec = DataSpec({"image": TensorSpec((3, 32, 32), -1.0, 1.0)})
        with pytest.raises(UserError, match="--loss critic lets a discriminator without a"):
            lapgan.check(spec)
    finally:
        LOSSES._entries.pop("critic")


@pytest.mark.parametrize("what", ["EXTRACTORS.register('classifier')", "register('dcgan')"])
def test_a_name_of_this_projects_own_is_not_to_be_had(what: str, write: Write) -> None:
    write(
        "taker",
        "from gan_core.metrics.features import EXTRACTORS\nfrom gan_core.variant import register\n"
        f"{what}(type('Taken', (), {{}}))\n",
    )
    with pytest.raises(
        UserError, match=r"--plugin taker cannot be imported: ValueError: .*already"
    ):
        make_config({"variant": "dcgan", "plugins": ["taker"]})


def test_a_folder_says_by_what_its_run_was_started_last(tmp_path: Path) -> None:
    values = {"variant": "gan", "data": "ring", "storage": str(tmp_path), "name": "again"}
    small = {"extractor": "none", "hidden": 8, "maxout_units": 4, "batch_size": 8}
    for steps, rate in ((2, 0.01), (4, 0.02)):
        config = make_config({**values, **small, "steps": steps, "lr_d": rate})
        play(
            config, World(), FolderObserver(config.folder, World()), find_checkpoint(config.folder)
        )
        assert make_config(read_config(config.folder / "config.yaml")) == config
    checkpoint = find_checkpoint(config.folder)
    nameless = make_config({"variant": "gan", "data": "ring", **small, "steps": 4, "lr_d": 0.03})
    assert play(nameless, World(), Observer(), checkpoint)["step"] == 4


def test_a_subclass_may_refuse_to_see_real_and_fake_in_one_batch() -> None:
    examples = load_examples("ring", None, "train")
    for cls, expected in ((Lines, False), (type("Both", (Lines,), {"one_pass": True}), True)):
        variant = cls(cls.Options())
        variant.build(examples.spec)
        assert variant.one_pass is expected


def test_a_generator_of_another_shape_is_told_what_is_wanted() -> None:
    wide = {"make_generator": lambda self, data: nn.Linear(self.options.latent, 3)}
    examples = load_examples("ring", None, "train")
    listed = DataSpec({"point": TensorSpec([2])}, "point")  # type: ignore[arg-type]
    lines = Lines(Lines.Options())
    lines.build(listed)
    Game(lines, examples, examples, batch_size=8).play(1)
    variant = type("Wide", (Lines,), wide)(Lines.Options())
    variant.build(examples.spec)
    game = Game(variant, examples, examples, batch_size=8)
    with pytest.raises(UserError, match=r"made targets of the shape \(3,\), not \(2,\): make_gen"):
        game.play(1)


@pytest.mark.parametrize("method", ["make_generator", "make_discriminator"])
def test_a_method_that_makes_no_network_is_named(method: str) -> None:
    variant = type("Without", (Lines,), {method: lambda self, data: None})(Lines.Options())
    with pytest.raises(UserError, match=f"`{method}` returned a NoneType, not an nn.Module"):
        variant.build(load_examples("ring", None, "train").spec)


class Judge(nn.Module):
    """Points (N, 2) to what ``answer`` makes of three numbers each (N, 3)."""

    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer, self.answer = nn.Linear(2, 3), answer

    def forward(self, points: Tensor) -> Any:
        return self.answer(self.layer(points))


@pytest.mark.parametrize("one_pass", [True, False])
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda scores: scores, r"says 3 numbers of a target, not one logit \(N, 1\)"),
        (lambda scores: scores[::2, 0], r"made \(\d+,\) of \d+ targets, not a row for each"),
        (lambda scores: scores.mean(), r"made \(\) of \d+ targets, not a row for each"),
        (lambda scores: scores.mean(dim=0), r"made \(3,\) of \d+ targets, not a row for each"),
        (lambda scores: None, r"gives a NoneType, not a tensor \(N, 1\)"),
        (lambda scores: (scores, scores), r"gives a tuple, not a tensor \(N, 1\)"),
    ],
)
def test_a_discriminator_of_other_outputs_is_told_what_is_wanted(
    answer: Callable[[Tensor], Any], told: str, one_pass: bool
) -> None:
    examples = load_examples("ring", None, "train")
    own = {"make_discriminator": lambda self, data: Judge(answer), "one_pass": one_pass}
    variant = type("Judged", (Lines,), own)(Lines.Options())
    variant.build(examples.spec)
    game = Game(variant, examples, examples, batch_size=8)
    with pytest.raises(UserError, match=f"the discriminator {told}"):
        game.play(1)


@pytest.mark.parametrize("method", ["discriminator_terms", "generator_terms"])
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda outputs: outputs.mean(), "a Tensor"),
        (lambda outputs: None, "a NoneType"),
        (lambda outputs: ("loss/own", outputs.mean(), 0.1), "a tuple"),
        (lambda outputs: [outputs.mean()], "a list"),
    ],
)
def test_terms_of_ones_own_that_are_no_list_of_terms_are_told(
    method: str, answer: Callable[[Tensor], Any], told: str
) -> None:
    examples = load_examples("ring", None, "train")
    own = {method: lambda self, outputs, *_: answer(outputs)}
    variant = type("Termed", (Lines,), own)(Lines.Options())
    variant.build(examples.spec)
    game = Game(variant, examples, examples, batch_size=8)
    with pytest.raises(UserError, match=f"`{method}` of Termed gives {told}, not a list of \\("):
        game.play(1)


@dataclasses.dataclass(frozen=True)
class Deciding(AdversarialOptions):
    slope: str | None = None

    @property
    def decided(self) -> dict[str, Any]:
        return {"slope": "relu"} if self.loss == "hinge" else {}


def test_options_of_ones_own_may_decide_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    cls = type("Sloping", (Lines,), {"Options": Deciding})
    for loss, slope, weight in (("hinge", "relu", 0), ("wasserstein", None, 10)):
        variant = cls(Deciding(loss=loss))
        variant.build(load_examples("ring", None, "train").spec)
        assert (variant.recipe.slope, variant.recipe.gradient_penalty) == (slope, weight)
    monkeypatch.setitem(VARIANTS._entries, "sloping", cls)
    old, new = (make_config({"variant": "sloping", **o}) for o in ({}, {"loss": "hinge"}))
    with pytest.raises(UserError, match="slope was None and is now relu by --loss hinge"):
        check_resumable(old, new)


def test_a_run_from_python_is_known_to_every_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = make_config({"variant": "gan", "data": "ring", "steps": 4, "name": "py", "samples": 9})
    world = World()
    play(config, world, FolderObserver(config.folder, world))
    for line in (
        "sample py --n 4",
        "evaluate py --samples 50",
        "diagnose py",
        "compare --markdown",
    ):
        assert main(line.split()) == 0, line
    assert "py" in capsys.readouterr().out
    assert main(["train", "--resume", "py", "--steps", "6", "--workers", "0"]) == 0
    kept = (config.folder / "config.yaml").read_text()
    assert "steps: 6" in kept


def compiled(game: Game) -> Game:
    """``game``, taken for one whose networks are compiled."""
    for seat in game.seats:
        seat._compiled = True
    return game


def test_a_second_derivative_that_was_not_announced_is_told() -> None:
    class Compiled(Lines):
        def discriminator_terms(self, real: Tensor, fake: Tensor, batch: Any) -> list[Any]:
            raise RuntimeError("torch.compile ... does not currently support double backward")

    examples = load_examples("ring", None, "train")
    variant = Compiled(Compiled.Options())
    variant.build(examples.spec)
    with pytest.raises(
        UserError, match=r"objective of discriminator differentiates .*second_order"
    ):
        compiled(Game(variant, examples, examples, batch_size=8)).play(1)
    with pytest.raises(RuntimeError, match=r"torch\.compile \.\.\. does not"):
        Game(variant, examples, examples, batch_size=8).play(1)  # not the compiler's doing


def test_what_is_defined_anew_in_one_place_replaces_what_was() -> None:
    cell = (
        "from gan_core.variant import register\n"
        "from gan_core.losses import LOSSES, AdversarialLoss\n"
        "from gan_core.variants.adversarial import AdversarialVariant\n"
        "@register('cell')\nclass Cell(AdversarialVariant):\n"
        "    number = {}\n    make_generator = make_discriminator = None\n"
        "def ours(real, fake): return real\n"
        "def theirs(fake, real=None): return fake\n"
        "LOSSES.register('cell')(AdversarialLoss('{}', ours, theirs))\n"
    )
    try:
        for number in (1, 2):
            exec(cell.format(number, number), {"__name__": "notebook"})
        assert vars(VARIANTS["cell"])["number"] == 2
        assert LOSSES["cell"].summary == "2"
        with pytest.raises(ValueError, match="'cell' is registered already"):
            exec(cell.format(3, 3), {"__name__": "elsewhere"})
        theirs = "LOSSES.register('hinge')(AdversarialLoss('mine', *HINGE))"
        same = LOSSES["hinge"].discriminator, LOSSES["hinge"].generator
        named = {"LOSSES": LOSSES, "AdversarialLoss": AdversarialLoss, "HINGE": same}
        with pytest.raises(ValueError, match="'hinge' is registered already"):
            exec(theirs, {"__name__": "elsewhere", **named})
    finally:
        VARIANTS._entries.pop("cell", None)
        LOSSES._entries.pop("cell", None)


SPACE = """
import dataclasses
from ray import tune
from torch import nn
from gan_core.options import option
from gan_core.variant import GameOptions, Variant, register
from tune_spaces import Dimension, SearchSpace

@dataclasses.dataclass(frozen=True)
class Options(GameOptions):
    pull: float = option(1.0, "how strong", kind="schedule", above=0)

@register("searched")
class Searched(Variant):
    Options = Options
    build = stages = noise = sample = None
    {space}
"""


def test_a_variant_of_ones_own_brings_its_search_space(write: Write) -> None:
    given = 'SearchSpace({"pull": Dimension(tune.choice([1.0, 2.0]), "both were tried by hand")})'
    write("spaced", SPACE.format(space=f"space = {given}"))
    import_plugins(("spaced",))
    assert set(space_of("searched").dimensions) == {"pull"}
    write("by_target", SPACE.format(
        space=f"@classmethod\n    def space(cls, target): assert target == 'point'; return {given}"
    ))  # fmt: skip
    import_plugins(("by_target",))
    assert set(space_of("searched", "point").dimensions) == {"pull"}


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ("pass", "nothing says what to search for searched: give the class an attribute `space`"),
        ("space = {'pull': 3}", "`space` of searched is a dict, not a tune_spaces.SearchSpace"),
        ("space = SearchSpace({'pul': 3})", "unknown option of searched .* did you mean 'pull'?"),
        ("space = SearchSpace({'pull': tune.choice([1.0])})", "pull in the `space` of searched is"),
        ("space = SearchSpace({'pull': Dimension([1.0], '')})", "no Dimension of a tune.choice, "),
        (
            "space = SearchSpace({'pull': Dimension(tune.randint(1, 9), '')})",
            "no Dimension of a tune.choice, ",
        ),
        (
            "space = SearchSpace({'pull': Dimension(tune.grid_search([1.0]), '')})",
            r'write Dimension\(tune.choice\(\[1, 2\]\), "why these"\)',
        ),
        (
            "@classmethod\n    def space(cls, target): return {}[target]",
            "`space` of searched fails for the target 'image': KeyError: 'image'",
        ),
    ],
)
def test_a_space_that_is_none_is_refused(write: Write, space: str, expected: str) -> None:
    write("unspaced", SPACE.format(space=space))
    import_plugins(("unspaced",))
    with pytest.raises(UserError, match=expected):
        space_of("searched")


def test_an_option_that_tune_has_too_is_refused_there(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    write("counted", VARIANT.format(field="trials: int = 3"))
    said = answer(capsys, "tune mine --plugin counted --data ring --trials 2")
    assert said == (
        "error: the option --trials of variant 'mine' has the name of one of tune's own: give it "
        "another\n"
    )


def test_a_study_knows_the_systems_of_a_plugin(
    write: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write("own_loss", LOSS)
    for verb in ("study --plugin own_loss", "tune", "train gan", "list"):
        with contextlib.suppress(SystemExit):
            assert "--plugin MODULE" in answer(capsys, f"{verb} --help"), verb
    write("studied", VARIANT.format(field="pass"))
    played: list[GanStudy] = []

    def run(study: GanStudy) -> None:
        played.append(study)

    monkeypatch.setattr(GanStudy, "run", run)
    line = ["study", "--plugin", "studied", "--variants", "mine,gan", "--data", "ring"]
    assert main([*line, "--mine", "--latent 3"]) == 0
    words = {variant: played[0].search_words(variant) for variant in ("mine", "gan")}
    assert words["mine"][-4:] == ["--plugin", "studied", "--latent", "3"]
    assert words["gan"][-2:] == ["--plugin", "studied"]
