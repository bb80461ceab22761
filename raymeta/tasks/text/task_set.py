"""Few-shot classification of one's own texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass

from raymeta.errors import DataError
from raymeta.options import STRICT
from raymeta.tasks.base import Goal
from raymeta.tasks.data_folder import Folder
from raymeta.tasks.grouped.sorting import Encoded, Rows
from raymeta.tasks.grouped.source import Sourced
from raymeta.tasks.reader import Reader
from raymeta.tasks.rows import as_json, require_columns
from raymeta.tasks.text.tokenizer import tokenizer_of_file
from raymeta.tasks.text.tokens import TokenReader, text_of
from raymeta.tasks.text.words import MOST_WORDS, Words, vocabulary_of

MOST_LENGTH = 128
"""Words or tokens of a text where `length` does not say."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Text(Sourced):
    """Texts with labels in a CSV, TSV, JSON-lines or Parquet file; classes are sampled into tasks.

    A text becomes ids of its words, {"tokens", "mask"}: a vocabulary of the training classes, or the tokens of a
    tokenizer file. `model: text` is a network for such inputs.
    """

    goal: ClassVar[Goal] = "classification"
    unit: ClassVar[str] = "texts"

    text: str = "text"
    """column of the text"""
    label: str = "label"
    """column of its class"""
    split_column: str | None = None
    """column that says train, val or test, the same for all rows of a class"""
    length: PositiveInt | None = None
    """words or tokens of a text, longer ones are cut; that of the longest training text unless given, at most 128"""
    vocabulary: int = Field(default=20_000, ge=1, le=MOST_WORDS)
    """the most words that have an id of their own, the most frequent ones of the training classes"""
    min_count: PositiveInt = 2
    """times that a word stands in the training texts to have an id of its own"""
    unknown_ids: int = Field(default=1024, ge=1, le=MOST_WORDS)
    """ids that all other words share, by a hash of their letters; 1 makes them all the same"""
    tokenizer: Folder | None = None
    """a tokenizer.json, read by the library tokenizers, in place of words"""

    def rows(self) -> Rows:
        content = self.content("from_frame")
        require_columns(content, [n for n in (self.text, self.label, self.split_column) if n], self.where)
        pairs: list[dict[str, str]] = []
        for number, row in enumerate(content, 1):
            told = f"{self.where} row {number}"
            label = str(row[self.label] if row[self.label] is not None else "").strip()
            if not label:
                raise DataError(f"{told}: it has no {self.label}: fill it in, or leave the row out")
            pairs.append({"text": text_of(row, self.text, told), "label": label})
        splits = [str(row[self.split_column]) for row in content] if self.split_column else None
        return Rows(pairs, [pair["label"] for pair in pairs], None, splits, self.where)

    def fit(self, rows: Rows, train: list[int]) -> TokenReader:
        texts = [rows.content[place]["text"] for place in train]
        reader = self._reader_of_length(texts, self.length or MOST_LENGTH)
        if self.length is not None:
            return reader
        longest = max(map(len, reader.ids(texts)))
        return self._reader_of_length(texts, max(min(longest, MOST_LENGTH), 1))

    def _reader_of_length(self, texts: list[str], length: int) -> TokenReader:
        if self.tokenizer is not None:
            return tokenizer_of_file(Path(self.tokenizer), self.text, length)
        words = vocabulary_of(texts, self.vocabulary, self.min_count)
        return Words(column=self.text, length=length, vocabulary=words, unknown=self.unknown_ids)

    def encode(self, rows: Rows, reader: Reader | None) -> Encoded:
        assert isinstance(reader, TokenReader)
        return Encoded(dict(reader.arrays([row["text"] for row in rows.content])))

    def raw(self, rows: Rows, places: list[int]) -> bytes:
        return as_json([rows.content[place] for place in places])

    def load_notes(self, rows: Rows, reader: Any) -> list[str]:
        if not isinstance(reader, Words):
            return [f"a tokenizer of {reader.num_tokens:,} tokens, {reader.length} a text"]
        cut = sum(len(ids) > reader.length for ids in reader.ids([row["text"] for row in rows.content]))
        told = f"a vocabulary of {len(reader.vocabulary):,} words of the training classes, {reader.length} a text"
        return [told + (f"; {cut:,} longer texts are cut" if cut else "")]
