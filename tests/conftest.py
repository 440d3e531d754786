"""Where tests find weights and media; without them a test is skipped, and says so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from tests.live.brokers import kafka, secure_kafka

__all__ = ["kafka", "secure_kafka"]  # pytest finds fixtures by these names, in every folder

ROOT = Path(__file__).resolve().parents[1]

settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("deep", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def _folder(name: str) -> Path:
    folder = Path(os.environ.get("FUSEWATCH_SHARED", ROOT / "../shared")).resolve() / name
    if not folder.is_dir():
        pytest.skip(f"no {folder}: real media and weights are needed here", allow_module_level=True)
    return folder


@pytest.fixture(scope="session")
def weights() -> Path:
    """The folder of default model files."""
    return _folder("weights")


@pytest.fixture(scope="session")
def media() -> Path:
    """The folder of real clips."""
    return _folder("media")


@pytest.fixture(scope="session")
def scenes() -> Path:
    """The folder of composited scenes with truth."""
    return _folder("scenes")
