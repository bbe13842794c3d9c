"""The evaluator: what a generator has learned, in figures that say how they were measured."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from gan_core.data.examples import Examples, to_pixels, to_unit_range
from gan_core.data.mixtures import Mixture
from gan_core.engine.world import World
from gan_core.metrics import coverage, distances, diversity, manifold, similarity
from gan_core.metrics.bins import count_bins
from gan_core.metrics.features import Extractor, check_finite
from gan_core.metrics.names import ending_of
from gan_core.metrics.ranks import on_leader
from gan_core.metrics.real import batches_of, real_features
from gan_core.metrics.retrieval import Matcher
from gan_core.metrics.sampling import Generate, generated, quantised

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Figures by name, what each family of them means, and figures of each class.

    ``protocol`` has a line for each extractor's name, and for ``modes``. ``per_class`` has lists
    over the classes: ``class_share_real`` and ``class_share_generated`` by the classifier, and
    ``class_recall`` with the extractor's suffix (NaN: no real example of the class).
    ``signals``: for a diagnosis, what of the modes is to be expected of this classifier:
    ``seen/modes``, the classes that it sees in the real examples themselves, and
    ``seen/least_mode_ratio``, as ``least_mode_ratio``, of these and over their shares as it sees
    them.
    """

    figures: dict[str, float]
    protocol: dict[str, str]
    per_class: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    signals: dict[str, float] = dataclasses.field(default_factory=dict)


class Evaluator:
    """Measures generators against ``reference``, as often as wanted.

    Parameters
    ----------
    reference: what real data look like, at native size; usually the train split.
    extractors: whose features are compared (:func:`gan_core.metrics.extractors.create_extractor`).
    samples: how many are generated for an evaluation.
    world: all its ranks make the evaluator and call it; each makes its share of the samples, and
        all get the same figures, whatever their number.
    batch_size: samples at once on each rank; every call of ``generate`` has this many indices
        (or ``samples``, if that is less).
    cache: a folder that keeps the real features, by content; ``None`` keeps nothing.
    classifier: whose logits say the class of a sample; by default the extractor ``classifier``.
    mixture: the modes, for sources of points.
    conditional: the generator takes a class; recall of a class is then by the fakes of that class.
    resizer: how ``generate`` brings its targets to native size, for the protocol.
    matcher: says whether a picture matches its text, for sources with captions.

    Bare figure names (``fid``) are of the extractor ``inception``; others have their extractor's
    suffix (``fid_classifier``). Pictures of an 8-bit source are rounded to 8 bits first.
    """

    def __init__(
        self,
        *,
        reference: Examples,
        extractors: Sequence[Extractor],
        samples: int,
        world: World,
        batch_size: int = 500,
        cache: Path | None = None,
        classifier: Extractor | None = None,
        mixture: Mixture | None = None,
        conditional: bool = False,
        resizer: str = "none",
        matcher: Matcher | None = None,
    ) -> None:
        self.reference = reference
        self.extractors = {extractor.name: extractor for extractor in extractors}
        self.samples = samples
        self.world = world
        self.batch_size = batch_size
        self.classifier = classifier or self.extractors.get("classifier")
        self.mixture = mixture
        self.conditional = conditional
        self.resizer = resizer
        self.matcher = matcher
        self._shape = reference.spec.target_shape
        self._similar: float | None = None
        self._seen: Tensor | None = None  # shares of classes among the real examples
        self._of_training = reference.split in ("train", "train+validation")
        self._stored = reference.tensors[reference.spec.target]
        self._labels = reference.tensors["label"] if reference.spec.labelled else None
        self._real = {
            name: real_features(reference, extractor, world, cache, batch_size)
            for name, extractor in self.extractors.items()
        }
        real = self._real if world.leads else {}
        self._moments = {name: distances.RealMoments(f) for name, f in real.items()}
        self._kernels = {name: distances.RealKernel(f) for name, f in real.items()}
        self._manifolds = {
            name: manifold.RealManifold(features[self._compared(len(features))])
            for name, features in real.items()
        }
        self._diversity = {
            name: diversity.RealDiversity(features, samples) for name, features in real.items()
        }

    def __call__(
        self, generate: Generate, labels: Tensor | None = None, texts: Tensor | None = None
    ) -> Evaluation:
        """Figures of ``samples`` targets made by ``generate``; every rank calls it.

        ``generate`` gets int64 indices (any stretch of 0..samples, on ``world.device``) and
        returns the targets of these samples (n, ...) at native size in the source's range
        (pictures: -1 to 1). A sample must depend on its index alone. ``labels`` (samples,) are
        the classes that were asked for, where ``generate`` takes classes; ``texts`` (samples, K, d)
        the captions, where it takes these.

        Random number generators, gradients and precision settings are as before afterwards. If a
        sample is not finite all figures are NaN, and a warning says so.
        """
        if self.conditional and (labels is None or len(labels) != self.samples):
            raise ValueError(f"a conditional evaluation needs {self.samples} labels")
        made = self._sample(generate)
        if self._compares_classes and "pictures" not in made:
            made["pictures"] = self._pictures(generate)
        figures, per_class = on_leader(self.world, lambda: self._measure(made, labels, texts))
        signals = self._as_seen(per_class)
        bad = int((made["finite"] == 0).sum())
        if bad:
            if self.world.leads:
                log.warning(
                    "%d of %d generated samples are not finite: all figures of this evaluation "
                    "are NaN",
                    bad,
                    self.samples,
                )
            figures = dict.fromkeys(figures, math.nan)
            per_class = {name: [math.nan] * len(row) for name, row in per_class.items()}
            signals = {}
        return Evaluation(figures, self._protocol(), per_class, signals)

    def _without_examples(self) -> str:
        """What to say of classes of which there are no real examples, in words; "" of none."""
        assert self._labels is not None
        spec = self.reference.spec
        shares = coverage.class_shares(self._labels, spec.classes).tolist()
        names = spec.class_names or tuple(map(str, range(spec.classes)))
        lacking = [name for name, share in zip(names, shares, strict=True) if share == 0]
        if not lacking:
            return ""
        return f"; no real example of {', '.join(lacking)}: mode_kl is infinite where one is made"

    def _as_seen(self, per_class: dict[str, list[float]]) -> dict[str, float]:
        """The signals about modes; every rank calls it, and looks at the real examples once."""
        if "class_share_generated" not in per_class or self.classifier is None:
            return {}
        shares = torch.tensor(per_class["class_share_generated"], dtype=torch.float64)
        if self._seen is None:
            batches = batches_of(self.reference, self.world, self.batch_size)
            parts = [_predicted(self.classifier, images) for images in batches]
            labels = self.world.gather(torch.cat(parts), len(self.reference))
            self._seen = coverage.class_shares(labels, len(shares))
        there = self._seen > 0
        ratio = (shares / self._seen)[there].min()
        return {"seen/modes": float(there.sum()), "seen/least_mode_ratio": float(ratio)}

    def _sample(self, generate: Generate) -> dict[str, Tensor]:
        """What the figures need of all ranks' samples: (samples, ...) by name, on every rank."""
        parts: dict[str, list[Tensor]] = {}
        for targets, finite in generated(
            generate, self.world, self.samples, self.batch_size, self._shape
        ):
            seen = {"finite": finite.to(torch.uint8), **self._see(targets)}
            for name, tensor in seen.items():
                parts.setdefault(name, []).append(tensor)
        return {n: self.world.gather(torch.cat(p), self.samples) for n, p in parts.items()}

    @property
    def _compares_classes(self) -> bool:
        """Whether there are classes of pictures whose samples are compared with each other."""
        return self.classifier is not None and self.mixture is None and self._labels is not None

    def _pictures(self, generate: Generate) -> Tensor:
        """The first of many samples again, as uint8 pixels, to compare those of a class."""
        count = min(self.samples, similarity.PICTURES)
        made = generated(generate, self.world, count, self.batch_size, self._shape)
        return self.world.gather(torch.cat([to_pixels(targets) for targets, _ in made]), count)

    def _see(self, targets: Tensor) -> dict[str, Tensor]:
        if self.mixture is not None:
            return {"points": targets}
        images = quantised(targets) if self._stored.dtype == torch.uint8 else targets
        seen = {}
        for name, extractor in self.extractors.items():
            features, logits = extractor.features(images)
            seen[f"features {name}"] = features
            if logits is not None:
                seen[f"logits {name}"] = logits
        if self.classifier is not None:
            logits = seen.get(f"logits {self.classifier.name}")
            known = None if logits is None else logits.argmax(1)
            seen["predicted"] = _predicted(self.classifier, images) if known is None else known
        if self._compares_classes and self.samples <= similarity.PICTURES:  # else more than needed
            seen["pictures"] = to_pixels(targets)
        return seen

    def _measure(
        self, made: dict[str, Tensor], labels: Tensor | None, texts: Tensor | None
    ) -> tuple[dict[str, float], dict[str, list[float]]]:
        """All figures, from the samples of all ranks."""
        figures: dict[str, float] = {}
        per_class: dict[str, list[float]] = {}
        for name in self.extractors:
            suffix = ending_of(name)
            features = made[f"features {name}"]
            check_finite(features, self.extractors[name], "generated")
            figures |= self._distance_figures(name, features, made.get(f"logits {name}"))
            own, recall = self._manifold_figures(name, features, labels)
            figures |= own
            alike = self._diversity[name].figures(features)
            if not self._of_training:  # what is near to these was not copied from training
                del alike["copied_share"]
            figures |= {f"{figure}{suffix}": value for figure, value in alike.items()}
            if recall is not None:
                present = recall[~recall.isnan()]
                figures[f"min_class_recall{suffix}"] = present.min().item()
                per_class[f"class_recall{suffix}"] = recall.tolist()
        if self.matcher is not None and texts is not None:
            figures |= self._retrieval(self.matcher, made, texts)
        if "predicted" in made and self._labels is not None:
            balance = coverage.class_shares(self._labels, self.reference.spec.classes)
            shares = coverage.class_shares(made["predicted"], len(balance))
            figures |= coverage.mode_figures(made["predicted"], balance)
            figures |= self._similarity(made["pictures"], made["predicted"])
            per_class["class_share_real"] = balance.tolist()
            per_class["class_share_generated"] = shares.tolist()
            if labels is not None:
                figures["class_accuracy"] = coverage.class_accuracy(made["predicted"], labels)
        if self.mixture is not None:
            modes, sigma = self.mixture.modes, self.mixture.sigma
            figures |= coverage.mixture_figures(made["points"], modes, sigma)
        return figures, per_class

    def _distance_figures(self, name: str, fake: Tensor, logits: Tensor | None) -> dict[str, float]:
        suffix = ending_of(name)
        figures = {
            f"fid{suffix}": self._moments[name].frechet_distance(fake),
            f"kid{suffix}": self._kernels[name].distance(fake),
        }
        if logits is not None:
            figures[f"inception_score{suffix}"] = distances.inception_score(logits)
        return figures

    def _manifold_figures(
        self, name: str, fake: Tensor, labels: Tensor | None
    ) -> tuple[dict[str, float], Tensor | None]:
        """Precision, recall, density, coverage; and recall (K,) of each class, if there are any."""
        suffix, manifolds = ending_of(name), self._manifolds[name]
        chosen = self._compared(len(fake))
        result = manifolds.compare(fake[chosen])
        figures = {
            f"precision{suffix}": result.precision,
            f"recall{suffix}": result.recall,
            f"density{suffix}": result.density,
            f"coverage{suffix}": result.coverage,
        }
        if self._labels is None:
            return figures, None
        classes = self.reference.spec.classes
        positions = self._compared(len(self.reference))
        real_labels = self._labels.to(positions.device)[positions]
        if self.conditional and labels is not None:
            asked = labels.to(chosen.device)[chosen]
            recall = manifold.class_recall(
                manifolds.features, real_labels, fake[chosen] - manifolds.centre, asked, classes
            )
        else:
            recall = manifold.mean_by_class(result.recalled, real_labels, classes)
        return figures, recall

    def _similarity(self, pictures: Tensor, predicted: Tensor) -> dict[str, float]:
        """``ms_ssim`` within the classes of the samples, and of as many real pictures."""
        assert self._labels is not None
        index = manifold.spread(len(self.reference), similarity.PICTURES)
        real = self._stored[index]
        if real.dtype == torch.uint8:
            real = to_unit_range(real)
        fake = to_unit_range(pictures)
        within = similarity.similarity_within_classes
        if self._similar is None:
            self._similar = within(real, self._labels[index])
        return {"ms_ssim": within(fake, predicted[: len(fake)]), "ms_ssim_real": self._similar}

    def _retrieval(
        self, matcher: Matcher, made: dict[str, Tensor], texts: Tensor
    ) -> dict[str, float]:
        """How often a picture is nearer to its text than to another's: generated, and real."""
        name, own = matcher.extractor, self.reference.tensors["text"]
        fake = matcher.preference(made[f"features {name}"], texts)
        real = matcher.preference(self._real[name], own)
        excess = (fake - 0.5) / (real - 0.5) if real > 0.5 else math.nan
        found = {"retrieval": fake, "retrieval_real": real, "retrieval_excess": excess}
        return {f"{figure}{ending_of(name)}": value for figure, value in found.items()}

    def _compared(self, count: int) -> Tensor:
        return manifold.spread(count).to(self.world.device)

    def _protocol(self) -> dict[str, str]:
        real = len(self.reference)
        against = (
            f"{real} {self.reference.told} against {self.samples} generated, "
            f"resized to native: {self.resizer}"
        )
        size = distances.kernel_subset_size(real, self.samples)
        bins = count_bins(real, self.samples)
        in_bins = f"ndb K={bins} found and counted in different real ones, " if bins > 1 else ""
        settings = (
            f"kid {distances.SUBSETS} subsets of {size}, "
            f"inception score {distances.score_splits(self.samples)} splits, "
            f"precision and recall k={manifold.PRECISION_NEIGHBOURS}, density and coverage "
            f"k={manifold.DENSITY_NEIGHBOURS} on {_drawn(real, manifold.LIMIT)} against "
            f"{_drawn(self.samples, manifold.LIMIT)}, class recall by "
            f"{'the fakes of the class' if self.conditional else 'all fakes'}, {in_bins}"
            "vendi on "
            f"{min(diversity.LIMIT, real, self.samples)} of both, distance, birthday on "
            f"{_drawn(real, diversity.LIMIT)} against "
            f"{_drawn(self.samples, diversity.LIMIT)}"
        )
        lines = {n: f"{e}: {against}; {settings}" for n, e in self.extractors.items()}
        if self.classifier is not None and self._labels is not None:
            lines["modes"] = (
                f"classes by {self.classifier}, their shares against those of "
                f"{self.reference.split}'s own labels: {against}{self._without_examples()}"
            )
        if self.matcher is not None:
            lines["retrieval"] = f"{self.matcher.protocol}: {against}"
        if self.mixture is not None:
            lines["modes"] = (
                f"PacGAN: {self.samples} generated points, high quality within "
                f"{coverage.HIGH_QUALITY:g} sigma of a mode, found with one such point"
            )
        return lines


def _predicted(classifier: Extractor, images: Tensor) -> Tensor:
    _, logits = classifier.features(images)
    assert logits is not None, "a classifier has logits"
    return logits.argmax(1)


def _drawn(count: int, limit: int) -> str:
    """How many of ``count`` are compared, and that they are drawn, where those are not all."""
    return str(count) if count <= limit else f"{limit} drawn"
