"""The text stage: adds an embedding to the text of each report."""

from __future__ import annotations

from collections.abc import Sequence

from models.language.text import packed
from pipeline.ports import Model
from pipeline.types import FOREVER, Described, Mode, Progress, Record, Report, Roster
from pipeline.words import cleaned, cleaned_line, cleaned_record


class TextStage:
    """reports.v1 -> observations.v1: a Described for each Report; Progress, Roster and Mode pass.

    `encoder` takes texts and returns a vector for each. Control characters and marks of writing
    direction are taken out of the words before. No state is kept between records.
    """

    def __init__(self, encoder: Model) -> None:
        self._encoder = encoder

    def infer(self, batch: Sequence[Record]) -> Sequence[bytes | None]:
        """The embedding of each Report in the batch, little-endian float16; None for the rest."""
        texts = [cleaned(record.text) for record in batch if isinstance(record, Report)]
        embeddings = iter(self._encoder(texts) if texts else [])
        return [packed(next(embeddings)) if isinstance(r, Report) else None for r in batch]

    def open(self, floors: dict[str, int]) -> _TextState:
        """Returns a state that keeps nothing."""
        return _TextState()


class _TextState:
    def on(self, record: Record, inferred: bytes | None) -> Sequence[Record]:
        match record:
            case Report():
                return [
                    Described(
                        site=record.site,
                        source=record.source,
                        start=record.start,
                        end=record.end,
                        text=cleaned(record.text),
                        author=cleaned_line(record.author),
                        embedding=inferred or b"",
                    )
                ]
            case Progress() | Roster():
                return [record]
            case Mode():
                return [cleaned_record(record)]
            case _:
                return []

    def floor(self, site: str) -> int:
        """FOREVER: nothing is held. Ns."""
        return FOREVER
