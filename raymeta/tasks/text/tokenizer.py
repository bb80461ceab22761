"""How one text becomes tokens of a tokenizer file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from raymeta.errors import DataError
from raymeta.options import STRICT
from raymeta.system.reading import first_line, read_text
from raymeta.tasks.text.tokens import TokenReader

MOST_BYTES = 8 * 2**20
"""Of a tokenizer file, whose content goes into every run and model."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Tokenizer(TokenReader):
    """What the library `tokenizers` makes of a text, with the file's own normalisation and special tokens."""

    kind: ClassVar[str] = "tokenizer"

    column: str
    """of rows; a text may also come by itself"""
    length: PositiveInt
    """tokens of a text; what is longer is cut"""
    content: Annotated[str, Field(max_length=MOST_BYTES, repr=False)]
    """of the file tokenizer.json"""
    pad: NonNegativeInt = 0
    """id behind the end of a text"""

    @cached_property
    def _tokenizer(self) -> Any:
        try:
            import tokenizers
        except ImportError as error:
            raise DataError("a tokenizer file is read by tokenizers: pip install 'raymeta[text]'") from error
        try:
            found = tokenizers.Tokenizer.from_str(self.content)
        except Exception as error:  # what the library raises has no narrower class
            raise DataError(f"the tokenizer file cannot be read: {first_line(error)}") from error
        found.no_padding()
        found.enable_truncation(self.length)
        return found

    @property
    def num_tokens(self) -> int:
        return max(int(self._tokenizer.get_vocab_size()), self.pad + 1)

    @property
    def padding(self) -> int:
        return self.pad

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [one.ids for one in self._tokenizer.encode_batch(list(texts))]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_tokenizer"}


def tokenizer_of_file(path: Path, column: str, length: int) -> Tokenizer:
    """Raises `DataError` for a file that is none."""
    try:
        content = read_text(path, MOST_BYTES)
    except (OSError, ValueError) as error:
        raise DataError(f"tasks.tokenizer {path} cannot be read: {first_line(error)}") from error
    found = Tokenizer(column=column, length=length, content=content)
    vocabulary = found._tokenizer.get_vocab()
    pad = next((vocabulary[name] for name in ("[PAD]", "<pad>", "<|pad|>") if name in vocabulary), 0)
    return Tokenizer(column=column, length=length, content=content, pad=pad)
