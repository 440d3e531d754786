"""Computes sentence embeddings with all-MiniLM-L6-v2 (int8, ONNX Runtime) and `tokenizers`.

The embedding is the mean of the last hidden states over the tokens that are not padding, divided by
its L2 norm, as sentence-transformers does for this model (Reimers and Gurevych 2019,
arXiv:1908.10084). `tokenizers` is Hugging Face's package.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from tokenizers import Tokenizer

from models.language.embedding_rows import rows_first
from models.onnx_file import read_onnx
from models.onnx_session import open_session, session_options
from pipeline.config.fields import PROVIDERS
from pipeline.config.schema import Model
from pipeline.errors import ConfigError, OutsideError, WeightsError

TEXT_SIZE = 384  # numbers in an embedding
MAX_TOKENS = 256  # the model's training length; the rest of a text is ignored
MAX_CHARACTERS = 32 * MAX_TOKENS  # avoids tokenizing a megabyte for 256 tokens

Embedding = NDArray[np.float32]


def load(path: Path, settings: Model) -> TextEncoder:
    """The encoder that a config names."""
    return TextEncoder(path, providers=settings.providers, threads=settings.threads)


class TextEncoder:
    """Embeds texts: maps a batch of str to a float32 vector of 384, length 1, each.

    Each text runs separately, so its embedding does not depend on the rest of the batch (int8
    scales are computed over the whole input). Empty text is allowed. `path` is a folder with
    `model.onnx` and `tokenizer.json`. `threads` 0 means one per core. Raises WeightsError for
    missing or broken files, OutsideError for a provider this machine lacks, ConfigError for an
    unknown one.
    """

    def __init__(
        self, path: str | Path, providers: Sequence[str] = ("cpu",), threads: int = 0
    ) -> None:
        path = Path(path)
        missing = [n for n in ("model.onnx", "tokenizer.json") if not (path / n).is_file()]
        if missing:
            msg = f"{path}: {', '.join(missing)} not found; try `fusewatch weights pull`"
            raise WeightsError(msg)
        options = session_options(threads=threads)
        options.log_severity_level = 3
        try:
            model = rows_first(read_onnx(path / "model.onnx"))
            self._tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
            self._session = open_session(model, options, _names(providers))
        except WeightsError as error:
            msg = f"not a sentence encoder: {error}"
            raise WeightsError(msg) from error
        except (ConfigError, OutsideError):
            raise
        except Exception as error:  # both packages raise bare Exceptions for a broken file
            msg = f"{path}: not a sentence encoder: {error}"
            raise WeightsError(msg) from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._inputs = {entry.name for entry in self._session.get_inputs()}

    def __call__(self, batch: Sequence[str]) -> list[Embedding]:
        return [self._one(text) for text in batch]

    def _one(self, text: str) -> Embedding:
        # The tokenizer reads UTF-8, which cannot encode a lone surrogate.
        readable = text[:MAX_CHARACTERS].encode(errors="replace").decode()
        ids = np.array([self._tokenizer.encode(readable).ids], np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        if "token_type_ids" in self._inputs:
            feed["token_type_ids"] = np.zeros_like(ids)
        mean = np.asarray(self._session.run(None, feed)[0], np.float32)[0].mean(axis=0)
        found: Embedding = mean / max(float(np.linalg.norm(mean)), 1e-12)
        return found


def _names(providers: Sequence[str]) -> list[str]:
    """Returns ONNX Runtime's names of the providers, in the order of the config."""
    for provider in providers:
        if provider not in PROVIDERS:
            msg = f"provider {provider!r} is not known; there are {', '.join(PROVIDERS)}"
            raise ConfigError(msg)
        if PROVIDERS[provider] not in ort.get_available_providers():
            msg = f"this ONNX Runtime has no provider {provider!r}; use 'cpu' or install its build"
            raise OutsideError(msg)
    return [PROVIDERS[provider] for provider in providers]


def packed(embedding: Embedding) -> bytes:
    """Encodes an embedding as records store it: little-endian float16."""
    return embedding.astype("<f2").tobytes()
