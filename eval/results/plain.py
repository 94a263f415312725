"""Results as JSON holds them."""

import math
from dataclasses import fields, is_dataclass
from typing import Any

DIGITS = 6  # digits behind the point that are kept


def plain(value: Any) -> Any:
    """A value for JSON: named fields become dictionaries, numbers are rounded, what is no number becomes None."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if hasattr(value, "_asdict"):
        return {key: plain(part) for key, part in value._asdict().items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return round(value, DIGITS) if math.isfinite(value) else None
    return value
