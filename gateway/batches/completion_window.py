"""The completion window of a batch: ``24h``, as in OpenAI's API, or any shorter time, such as ``90m``."""

from __future__ import annotations

import re

LONGEST_S = 86_400
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
PATTERN = r"^[1-9][0-9]{0,4}[smhd]$"


def seconds(window: str) -> int:
    """A completion window in seconds.

    Raises:
        ValueError: it is not a duration, or longer than a day.
    """
    if not re.match(PATTERN, window) or (length := int(window[:-1]) * _UNITS[window[-1]]) > LONGEST_S:
        raise ValueError("allowed: '24h', or a shorter time in s, m or h, such as '90m'")
    return length
