"""A length of time as an option: any number in a range, and a number it must be."""

from __future__ import annotations

import math
from typing import Any

import click


class Seconds(click.FloatRange):
    """As click's FloatRange, which takes `nan` into every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number. Raises click.BadParameter: it is none, or beyond the range."""
        try:
            found = float(value)
        except ValueError:
            found = math.nan
        if math.isnan(found):
            self.fail(f"{value} is no length of time; right is a number of seconds", param, ctx)
        return float(super().convert(found, param, ctx))
