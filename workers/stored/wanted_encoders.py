"""Loads the models of a replay when they are needed first, and each set of them once."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.config.model_needs import needed_encoders
from pipeline.config.schema import Config
from pipeline.stages import ALL_STAGES, JUDGES
from workers.stages.encoders import Encoders, load_encoders


class WantedEncoders:
    """The models of recorded input; `cameras` or `microphones` is false where no scene has any.

    Raises WeightsError or ConfigError.
    """

    def __init__(self, *, cameras: bool = True, microphones: bool = True) -> None:
        self._cameras, self._microphones = cameras, microphones
        self._loaded: dict[object, Encoders] = {}

    def for_scenes(self, settings: Config) -> Encoders:
        """The models that scenes need."""
        return self._of(settings, ALL_STAGES, self._cameras, self._microphones)

    def for_frames(self, settings: Config) -> Encoders:
        """The models that stored frames, sound and reports need."""
        return self._of(settings, ALL_STAGES, True, True)

    def for_observations(self, settings: Config) -> Encoders:
        """The models that judge: phrases of rules are encoded."""
        return self._of(settings, JUDGES, True, True)

    def _of(
        self, settings: Config, stages: Sequence[str], cameras: bool, microphones: bool
    ) -> Encoders:
        needed = needed_encoders(settings, stages, cameras=cameras, microphones=microphones)
        key = (settings.models, tuple(stages), needed)
        if key not in self._loaded:
            self._loaded[key] = load_encoders(
                settings.models, recorded=True, stages=stages, needed=needed
            )
        return self._loaded[key]
