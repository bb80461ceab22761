"""How one text becomes ids of words: a vocabulary of the training texts."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass

from raymeta.options import STRICT
from raymeta.tasks.text.tokens import TokenReader

MOST_WORDS = 200_000
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Words(TokenReader):
    """Words in small letters and single signs: 0 is padding, then come ids of unknown words, then the vocabulary.

    Which id an unknown word gets follows from its letters, so that a word which is in support and query is one id.
    """

    kind: ClassVar[str] = "words"

    column: str
    """of rows; a text may also come by itself"""
    length: PositiveInt
    """words of a text; what is longer is cut"""
    vocabulary: Annotated[list[str], Field(max_length=MOST_WORDS)]
    """words of the training texts, the most frequent first"""
    unknown: PositiveInt = 1
    """ids that words share which are not in the vocabulary"""

    @property
    def num_tokens(self) -> int:
        return 1 + self.unknown + len(self.vocabulary)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        places = {word: 1 + self.unknown + place for place, word in enumerate(self.vocabulary)}
        return [[places.get(w) or 1 + zlib.crc32(w.encode()) % self.unknown for w in words_of(text)] for text in texts]


def words_of(text: str) -> list[str]:
    """Runs of letters and digits in small letters, and every other sign by itself."""
    return _WORD.findall(text.lower())


def vocabulary_of(texts: Sequence[str], size: int, min_count: int) -> list[str]:
    """The most frequent words, at most `size`, each in `texts` at least `min_count` times; ties by their letters."""
    counts = Counter(word for text in texts for word in words_of(text))
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return [word for word, count in ranked[:size] if count >= min_count]
