"""The verb ``train``: from the user's words to a checked configuration.

Everything that can be wrong with a configuration is said here, before Ray is imported. The data
are checked next: by the driver, or on a cluster, where only workers may see them, by a small task.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan_core.errors import UserError
from gan_core.paths import user_path
from pipelines.cluster import base_folder, on_this_machine
from pipelines.command_line import Parser, join_negative_numbers, plain_value
from pipelines.mlflow_client import tracking_uri
from pipelines.runs import (
    check_checkpoints,
    check_writable,
    find_run,
    named,
    pick_device,
    resolve,
    runs_folder,
)
from pipelines.train_parser import GAME, NESTED, SOURCE, build_parser, valueless_flags

if TYPE_CHECKING:
    from gan_core.config import RunConfig

_EXAMPLE = "python -m pipelines train dcgan --data digits --image-size 16 --width 32 --workers 2"
STOPPED_BY_DIAGNOSIS = 3
"""The exit code of a run that --stop-on ended; 130 is that of one stopped by Ctrl-C."""


def train_command(arguments: list[str]) -> int:
    """``train``: returns the exit code; ``UserError`` for anything wrong before it starts."""
    config, resume = plan(arguments)
    if config is None:
        return 0
    from pipelines.train import RunFailed, train

    try:
        summary = train(config, resume=resume)
    except RunFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    # Stopped: what a shell has chained behind must not go on as if all were done.
    if summary["status"] == "finished":
        return 0
    return STOPPED_BY_DIAGNOSIS if summary.get("stopped_by") else 130


def plan(arguments: list[str]) -> tuple[RunConfig | None, bool]:
    """The configuration that the words after ``train`` mean, and whether a run is resumed.

    ``None`` if they asked for help, which has been printed. Nothing is trained or written beyond
    the storage folder.
    """
    help = any(word in ("-h", "--help") for word in arguments)
    draft = _Draft(arguments)
    if help:
        print(draft.parser().format_help(), end="")
        return None, False
    config = draft.config()
    check_here(config, resume=draft.resumed is not None)
    return config, draft.resumed is not None


def configuration(arguments: list[str], verb: str) -> tuple[RunConfig, dict[str, Any]]:
    """For another verb that takes the words of ``train``: the configuration that they mean,
    checked against this machine, and what the command line itself said of it.
    """
    draft = _Draft(arguments)
    if draft.variant is None:
        raise UserError(f"{verb} needs a variant, such as `python -m pipelines {verb} dcgan`")
    config = draft.config()
    if config.begin_from is not None:
        raise UserError(f"--begin-from is for `train`, and {verb} begins all networks afresh")
    check_here(config, resume=False)
    return config, draft.given()


class _Draft:
    """The words after ``train``, half understood: a variant's options need its name first."""

    def __init__(self, arguments: list[str]) -> None:
        self.words = join_negative_numbers(arguments)
        plugins = tuple(find_values(self.words, "--plugin"))
        self.file = _file_values(find_values(self.words, "--config"))
        self.resumed = _find_run(
            find_values(self.words, "--resume"), find_values(self.words, "--storage"), self.file
        )
        if self.resumed is not None and find_values(self.words, "--begin-from"):
            raise UserError(
                "--begin-from is for a new run, and a resumed one goes on from its own checkpoint: "
                "leave out --begin-from, or --resume"
            )
        self.old = _run_values(self.resumed)
        named = (self.file or self.old).get("plugins") or ()
        self.plugins = plugins or ((named,) if isinstance(named, str) else tuple(named))
        register_everything(self.plugins)
        self.variant = self._variant()
        self.source = self._source()

    def _variant(self) -> str | None:
        from gan_core.variant import VARIANTS

        place = positional(self.words, valueless_flags())
        named = None if place is None else self.words.pop(place)
        found = named or self.file.get("variant") or self.old.get("variant")
        if found is not None:
            VARIANTS[str(found)]  # a wrong name is answered here
            self._same("variant", found)
        return found

    def _source(self) -> str:
        from gan_core.data.sources import SOURCES
        from gan_core.variant import VARIANTS, Variant

        named = find_values(self.words, "--data")[-1:]
        usual = Variant if self.variant is None else VARIANTS[self.variant]
        earlier = self.file.get("data") or self.old.get("data") or usual.default_data
        found = str(named[0] if named else earlier)
        SOURCES[found]
        self._same("data", found)
        return found

    def _same(self, name: str, value: object) -> None:
        """The resumed run's own: with another variant or source nothing else would make sense."""
        was = self.old.get(name, value)
        if was != value:
            raise UserError(
                f"cannot resume {self.resumed}: its {name} is {was}, not {value} "
                "(leave it out, or start a new run)"
            )

    def parser(self) -> Parser:
        """The parser for this variant and source."""
        return build_parser(self.variant, self.source)

    def config(self) -> RunConfig:
        """Defaults, then the resumed run, then the file, then the command line, checked."""
        from gan_core.config import check_resumable, make_config
        from pipelines.run_folder import kept_config

        given = self.given()
        if self.variant is None:
            raise UserError(f"train needs a variant, such as `{_EXAMPLE}` (see `list` for all)")
        values = merge(merge(_nested(self.old), _nested(self.file)), given)
        values.update(variant=self.variant, data=self.source, plugins=self.plugins)
        if self.resumed is not None:
            self._keep_place(values, given)
        try:
            config = make_config(values)
        except UserError as error:
            raise UserError(f"{error}{self._of_another()}") from None
        if self.resumed is None:
            return named(_with_beginning(config))
        check_resumable(kept_config(config.folder), config)
        return config

    def _of_another(self) -> str:
        """Whose options the file has, where they are not those of the variant that is named."""
        was = self.file.get("variant")
        if was in (None, self.variant):
            return ""
        return f" (the file of --config is of a run of {was})"

    def given(self) -> dict[str, Any]:
        """What the command line says, as nested configuration values."""
        from gan_core.config import RunConfig
        from gan_core.data.loading import source_options_class
        from gan_core.variant import VARIANTS

        found = self.parser().read(self.words)
        values: dict[str, Any] = {"options": {}, "data_options": {}}
        # What the variant and the source both have, one flag sets for both.
        of_source = source_options_class(self.source)
        for name in (field.name for field in dataclasses.fields(of_source)):
            if GAME + name in found:
                found.setdefault(SOURCE + name, found[GAME + name])
        for key, value in found.items():
            if key.startswith(GAME) and self.variant is not None:
                name = key.removeprefix(GAME)
                options = VARIANTS[self.variant].Options
                values["options"][name] = plain_value(options, name, value)
            elif key.startswith(SOURCE):
                name = key.removeprefix(SOURCE)
                values["data_options"][name] = plain_value(of_source, name, value)
            elif key not in ("config", "resume", "plugin"):
                values[key] = plain_value(RunConfig, key, value)
        return values

    def _keep_place(self, values: dict[str, Any], given: dict[str, Any]) -> None:
        """A resumed run stays where it is, under its name."""
        assert self.resumed is not None
        if given.get("name") not in (None, self.resumed.name):
            raise UserError(
                f"--name cannot rename the resumed run {self.resumed.name}: leave it out"
            )
        values.update(name=self.resumed.name, storage=str(self.resumed.parent))


def find_values(words: Sequence[str], option: str) -> list[str]:
    """The values of ``option`` in ``words``, written ``--x VALUE`` or ``--x=VALUE``."""
    found = []
    for place, word in enumerate(words):
        if word == option:
            if place + 1 == len(words):
                raise UserError(f"{option} needs a value")
            found.append(words[place + 1])
        elif word.startswith(f"{option}="):
            found.append(word.partition("=")[2])
    return found


def positional(words: Sequence[str], valueless: set[str]) -> int | None:
    """The place of the first of ``words`` that is neither an option nor an option's value."""
    after_option = False
    for place, word in enumerate(words):
        if word.startswith("-"):
            after_option = "=" not in word and word not in valueless
        elif after_option:
            after_option = False
        else:
            return place
    return None


def register_everything(plugins: tuple[str, ...]) -> None:
    """Import what registers variants and sources."""
    import gan_core.data
    import gan_core.variants  # noqa: F401
    from gan_core.config import import_plugins

    import_plugins(plugins)


def _file_values(paths: Sequence[str]) -> dict[str, Any]:
    if not paths:
        return {}
    from gan_core.config import read_config

    values = read_config(user_path(paths[-1], "--config"))
    return {str(name).replace("-", "_"): value for name, value in values.items()}


def _find_run(names: Sequence[str], storages: Sequence[str], file: dict[str, Any]) -> Path | None:
    if not names:
        return None
    from pipelines.tuning.study import is_study

    found = find_run(names[-1], runs_folder(str((storages or [file.get("storage") or "runs"])[-1])))
    if is_study(found):
        raise UserError(f"{names[-1]} is a search: go on with `python -m pipelines tune --resume`")
    if is_study(found.parent):
        search = found.parent.name
        raise UserError(
            f"{names[-1]} is a trial of the search {search}: go on with `python -m pipelines tune "
            f"--resume {search}`, or give a new run --begin-from {names[-1]}"
        )
    return found


def _with_beginning(config: RunConfig) -> RunConfig:
    """``config`` with the one checkpoint that ``--begin-from`` means, which is whole."""
    from gan_core.beginning import with_beginning
    from pipelines.tuning.study import is_study

    if config.begin_from is None:
        return with_beginning(config)
    folder = resolve(config.begin_from, config.storage)
    if is_study(folder):
        raise UserError(
            f"{config.begin_from} is a search, whose trials keep no best state: train its "
            "best.yaml, and begin from that run, or from a trial's last state "
            f"({config.begin_from}/trial_0001)"
        )
    return with_beginning(dataclasses.replace(config, begin_from=str(folder)))


def _run_values(folder: Path | None) -> dict[str, Any]:
    if folder is None:
        return {}
    from gan_core.config import read_config

    return read_config(folder / "config.yaml")


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    """Configuration values with the variant's options, which may stand beside, in ``options``."""
    from gan_core.config import RunConfig

    own = {f.name for f in dataclasses.fields(RunConfig)}
    for name in NESTED:
        if not isinstance(values.get(name) or {}, dict):
            raise UserError(f"'{name}' in the configuration must hold names and values")
    beside = {name: value for name, value in values.items() if name not in own}
    return {
        **{name: value for name, value in values.items() if name in own},
        "options": {**(values.get("options") or {}), **beside},
        "data_options": dict(values.get("data_options") or {}),
    }


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """``above`` laid over ``below``, option by option."""
    values = {**below, **above}
    for name in NESTED:
        values[name] = {**below.get(name, {}), **above.get(name, {})}
    return values


def check_here(config: RunConfig, resume: bool) -> None:
    """Everything about ``config`` that this machine can tell; raises ``UserError``."""
    from gan_core.variant import VARIANTS
    from pipelines.apart import parts_of

    for part in [*parts_of(config).values()] or [config]:  # stages that are played apart
        _check_share(part)
    VARIANTS[config.variant](config.game).check_options()
    _check_source(config, resume)
    if _runs_here(config):
        pick_device(config.device)
    if config.workers and not resume:  # which has an address of its own
        tracking_uri(base_folder())
    check_writable(runs_folder(config.storage), f"--storage {config.storage}")
    if resume:
        check_checkpoints(config.folder)


def _check_share(config: RunConfig) -> None:
    """Raises ``UserError`` unless the workers can share the run's batches."""
    from gan_core.variant import VARIANTS

    batch, workers = config.options["batch_size"], config.workers
    if workers and batch % workers:
        raise UserError(
            f"--batch-size {batch} cannot be divided by --workers {workers}: every worker takes an "
            "equal share of the batch"
        )
    VARIANTS[config.variant](config.game).check_share(batch // max(1, workers))


def _runs_here(config: RunConfig) -> bool:
    """Whether the training processes see this machine's files and devices."""
    return config.workers == 0 or on_this_machine()


def _check_source(config: RunConfig, resume: bool) -> None:
    """The source's options; its folder only where the workers are on this machine."""
    from gan_core.data.loading import create_source

    root = config.data_root
    if root is not None and not _runs_here(config):
        root = "."
    source = create_source(config.data, root, **config.data_options)
    if _runs_here(config) and not resume:
        _check_apart(runs_folder(config.storage), source.read_whole)
    weights = config.extractor_weights
    if weights is None or not _runs_here(config):
        return
    if not user_path(weights, "--extractor-weights").is_file():
        raise UserError(f"--extractor-weights {weights} does not exist: give the weights' file")


def _check_apart(storage: Path, pictures: Path | None) -> None:
    """Raises ``UserError`` if the runs in ``storage`` would be taken for a class of ``pictures``,
    as in a folder of pictures that is the current one.
    """
    if pictures is None or not storage.resolve().is_relative_to(pictures.resolve()):
        return
    inner = storage.resolve().relative_to(pictures.resolve()).parts
    if any(name.startswith(".") for name in inner):  # which is not looked into
        return
    raise UserError(
        f"--storage {storage} lies in {pictures}, whose folders are read as classes of pictures: "
        "name another one, outside"
    )
