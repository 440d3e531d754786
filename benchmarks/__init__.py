"""Measurements beside rivals. `models` is imported first, before any library for models."""

import models  # noqa: F401 - switches off what such libraries send
