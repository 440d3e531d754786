"""All tests. A test may import a library for models directly, so `models` is imported first."""

import models  # noqa: F401 - switches off what such libraries send
