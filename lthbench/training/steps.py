"""`Steps`: a length or a point of training, written `500it`, `160ep` or `3ep50it`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

_PATTERN = re.compile(r"(?:(\d+)ep)?(?:(\d+)it)?")


@dataclass(frozen=True)
class Steps:
    """Whole epochs plus iterations (one iteration is one update from one batch)."""

    epochs: int = 0
    iterations: int = 0

    @classmethod
    def parse(cls, text: str) -> Steps:
        """Read `500it`, `160ep` or `3ep50it`; anything else is a ValueError."""
        match = _PATTERN.fullmatch(text)
        if not text or match is None:
            raise ValueError(f"'{text}' is no number of steps; write 500it, 160ep or 3ep50it")
        return cls(int(match[1] or 0), int(match[2] or 0))

    def count(self, steps_per_epoch: int) -> int:
        """The number of iterations, given how many an epoch has."""
        return self.epochs * steps_per_epoch + self.iterations

    def scaled(self, factor: float, steps_per_epoch: int) -> Steps:
        """These steps times a factor, in iterations, to the nearest."""
        return self if factor == 1 else Steps(0, round(self.count(steps_per_epoch) * factor))

    def __str__(self) -> str:
        epochs = f"{self.epochs}ep" if self.epochs else ""
        return epochs + (f"{self.iterations}it" if self.iterations or not epochs else "")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        def validate(value: Any) -> Steps:
            if isinstance(value, Steps):
                return value
            if isinstance(value, str):
                return cls.parse(value)
            raise ValueError(f"{value!r} is no number of steps; write 500it, 160ep or 3ep50it")

        return core_schema.no_info_plain_validator_function(
            validate, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )
