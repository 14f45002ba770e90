"""language: which language a text is in, and how sure that is.

The model is py3langid's own (BSD-3-Clause licence; a fork of langid.py: Lui and Baldwin, "langid.py: An Off-the-shelf
Language Identification Tool", ACL 2012): naive Bayes over byte n-grams, about 140 languages, probabilities normalised
over them. Equal texts of a batch are classified once. A text without letters, or in which the model knows no n-gram,
is "und" (undetermined) at probability 0: the model would name whichever language comes first.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from corpusmith.operators.contract import Annotate, Part
from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.schemas.columns import CAPTION, Column
from corpusmith.schemas.errors import UserError

UNDETERMINED = "und"


class Language(Annotate, name="language", version=1):
    """Identify the language of the caption (py3langid)."""

    class Config(BaseConfig):
        column: str = Field(default=CAPTION.name, description="column that holds the text")
        min_letters: int = Field(default=1, ge=1, description='texts with fewer letters are "und"')
        languages: tuple[str, ...] = Field(
            default=(),
            description="ISO 639 codes to choose among; none for all that the model knows. Short texts gain from few",
        )

    isolated = False
    config: Config

    @property
    def requires(self) -> tuple[str, ...]:
        return (self.config.column,)

    @property
    def produces(self) -> tuple[Column, ...]:
        prefix = "" if self.config.column == CAPTION.name else f"{self.config.column}_"
        meaning = "ISO 639 code, two letters where there is one; und: nothing tells"
        return (
            Column(f"{prefix}language", pa.string(), meaning),
            Column(f"{prefix}language_probability", pa.float64(), "probability of that language, from 0 to 1"),
        )

    def setup(self) -> None:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        self._identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        if unknown := set(self.config.languages).difference(self._identifier.labels):
            choices = ", ".join(sorted(self._identifier.labels))
            raise UserError(f"language: unknown codes: {', '.join(sorted(unknown))}", hint=f"the model knows {choices}")
        self._identifier.set_languages(self.config.languages or None)
        self._clueless = self._identifier.classify("")

    def process(self, batch: pa.Table) -> Part:
        texts = batch.column(self.config.column).cast(pa.string()).combine_chunks().dictionary_encode()
        letters = pc.utf8_length(pc.replace_substring_regex(texts.dictionary, r"\P{L}+", ""))
        known = [
            self._classified(text) if count >= self.config.min_letters else (UNDETERMINED, 0.0)
            for text, count in zip(texts.dictionary.to_pylist(), letters.to_pylist(), strict=True)
        ]
        values = {}
        for column, found in zip(self.produces, zip(*known, strict=True) if known else ((), ()), strict=True):
            values[column.name] = pa.array(found, column.type).take(texts.indices)
        return Part(values)

    def _classified(self, text: str) -> tuple[str, float]:
        language, probability = self._identifier.classify(text)
        is_clueless = (language, probability) == self._clueless
        return (UNDETERMINED, 0.0) if is_clueless else (language, min(probability, 1.0))
