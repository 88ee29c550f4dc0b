"""`Steps`: a length or a point of training, written `500it`, `160ep`, `3ep50it`, or as a share of it, `2%`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any

from pydantic import AfterValidator, GetCoreSchemaHandler, WithJsonSchema
from pydantic_core import core_schema

_PATTERN = re.compile(r"(?:(\d{1,12})ep)?(?:(\d{1,12})it)?", re.ASCII)
_SHARE = re.compile(r"(\d+(?:\.\d+)?)%", re.ASCII)
_LENGTH = r"(?!$)(\d{1,12}ep)?(\d{1,12}it)?"
_CURE = "write 500it, 160ep or 3ep50it, or 2% for a share of a training"


@dataclass(frozen=True)
class Steps:
    """Whole epochs plus iterations (one iteration is one update from one batch), or a share of a training.

    Attributes:
        percent: of the training's length, above 0 and at most 100; then epochs and iterations are 0.
    """

    epochs: int = 0
    iterations: int = 0
    percent: Decimal | None = None

    @classmethod
    def parse(cls, text: str) -> Steps:
        """Read `500it`, `160ep`, `3ep50it` or `0.25%`; anything else is a ValueError."""
        if (share := _SHARE.fullmatch(text)) is not None:
            percent = Decimal(share[1])
            if percent > 100:
                raise ValueError(f"'{text}' is beyond the end of training")
            return cls(percent=percent.normalize()) if percent else cls()
        match = _PATTERN.fullmatch(text)
        if not text or match is None:
            raise ValueError(f"'{text}' is not a number of steps; {_CURE}")
        return cls(int(match[1] or 0), int(match[2] or 0))

    def count(self, steps_per_epoch: int, total: int | None = None) -> int:
        """The number of iterations, a share to the nearest.

        Args:
            total: the iterations of the whole training, of which shares are.

        Raises:
            ValueError: a share, but no total.
        """
        if self.percent is None:
            return self.epochs * steps_per_epoch + self.iterations
        if total is None:
            raise ValueError(_no_length(self))
        return round(Fraction(self.percent) * total / 100)

    def scaled(self, factor: float, steps_per_epoch: int) -> Steps:
        """These steps where the training is `factor` times as long: in iterations, to the nearest; a share stays."""
        if factor == 1 or self.percent is not None:
            return self
        return Steps(0, round(self.count(steps_per_epoch) * factor))

    def __str__(self) -> str:
        if self.percent is not None:
            return f"{self.percent:f}%"
        epochs = f"{self.epochs}ep" if self.epochs else ""
        return epochs + (f"{self.iterations}it" if self.iterations or not epochs else "")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        def validate(value: Any) -> Steps:
            if isinstance(value, Steps):
                return value
            if isinstance(value, str):
                return cls.parse(value)
            raise ValueError(f"is not a number of steps; {_CURE}")

        return core_schema.no_info_plain_validator_function(
            validate, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> dict[str, Any]:
        return {"type": "string", "pattern": rf"^({_LENGTH}|\d+(\.\d+)?%)$", "format": "steps"}


def _no_length(steps: Steps) -> str:
    return f"{steps} is a share of a training, not a length; write 500it, 160ep or 3ep50it"


def _is_length(steps: Steps) -> Steps:
    if steps.percent is not None:
        raise ValueError(_no_length(steps))
    if steps == Steps():
        raise ValueError(f"{steps} is not a training; give an iteration at least")
    return steps


# The length of a training, which has no other to be a share of.
Length = Annotated[
    Steps,
    AfterValidator(_is_length),
    WithJsonSchema({"type": "string", "pattern": f"^{_LENGTH}$", "format": "length"}),
]
