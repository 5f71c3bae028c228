"""The scale that a LoRA's configuration asks for: alpha over rank, by layer.

Of a configuration, peft's beside the file or diffusers' in it, this is all that is read: ranks, layers, biases and
magnitudes are those of the tensors. Other fields would let peft build what the file does not hold.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import regex

_MOST = 1e6  # of an alpha: a slip, not a wish
_LONGEST = 500  # characters of a pattern
_MOST_PATTERNS = 5000  # peft writes one for each layer at most
_SECONDS = 3.0  # for all patterns and layers of a file; what a person writes takes milliseconds


@dataclass(frozen=True)
class LoraScale:
    """What a configuration says of the scale.

    Attributes:
        alpha: of all layers that no pattern names; None: the scale is 1.
        patterns: regular expressions of layers' names, with the alpha of those layers.
        by_root: alpha over the root of the rank (rsLoRA), not over the rank.
    """

    alpha: float | None = None
    patterns: Mapping[str, float] | None = None
    by_root: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any] | None, prefix: str) -> LoraScale:
        """Read and check it.

        Args:
            config: the adapter's, by field; None: there is none.
            prefix: that its fields may have.

        Raises:
            ValueError: an alpha that is no number, a pattern that is none, or an adapter of another kind than LoRA.
        """
        if config is None:
            return cls()
        fields = {key.removeprefix(prefix): value for key, value in config.items()}
        kind, patterns = fields.get("peft_type", "LORA"), fields.get("alpha_pattern") or {}
        if str(kind).upper() != "LORA":
            raise ValueError(f"its adapter is a {kind!r:.40}, no LoRA")
        if not isinstance(patterns, dict):
            raise ValueError(f"alpha_pattern={patterns!r:.60} holds no alpha by layer")
        if len(patterns) > _MOST_PATTERNS:
            raise ValueError(f"alpha_pattern holds {len(patterns)} patterns, more than {_MOST_PATTERNS}")
        for pattern in patterns:
            if len(pattern) > _LONGEST:
                raise ValueError(f"alpha_pattern={pattern[:40]!r}… is longer than {_LONGEST} characters")
            try:
                re.compile(_whole(pattern))  # peft's own engine: regex takes more
            except (re.error, OverflowError, RecursionError) as error:
                raise ValueError(f"alpha_pattern={pattern!r:.60} is no pattern ({error})") from None
        return cls(
            None if fields.get("lora_alpha") is None else _alpha("lora_alpha", fields["lora_alpha"]),
            {pattern: _alpha(f"alpha_pattern of {pattern:.40}", value) for pattern, value in patterns.items()},
            bool(fields.get("use_rslora")),
        )

    def of_layers(self, ranks: Mapping[str, int]) -> dict[str, float]:
        """The factor of what each layer's pair adds, by the layer's name.

        Args:
            ranks: of the pairs.

        Raises:
            ValueError: a pattern goes back and forth in a name without end.
        """
        alphas, ends = dict.fromkeys(ranks, self.alpha), time.monotonic() + _SECONDS
        left = list(ranks)
        for pattern, alpha in (self.patterns or {}).items():  # the first that matches counts, as with peft
            try:
                # re has no limit of time: (\w+)+! takes minutes for a name of thirty letters
                whole = regex.compile(_whole(pattern))
                found = {layer for layer in left if whole.match(layer, timeout=_seconds_until(ends))}
            except (regex.error, TimeoutError):
                raise ValueError(f"alpha_pattern={pattern!r:.60} takes too long to match: name the layers") from None
            alphas |= dict.fromkeys(found, alpha)
            left = [layer for layer in left if layer not in found]
        return {
            layer: 1.0 if alpha is None else alpha / (math.sqrt(ranks[layer]) if self.by_root else ranks[layer])
            for layer, alpha in alphas.items()
        }


def _seconds_until(end: float) -> float:
    seconds = end - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _whole(pattern: str) -> str:
    """What a layer's name must match, as peft asks: ``peft.utils.other.get_pattern_key``."""
    return rf"(.*\.)?({pattern})$"


def _alpha(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _MOST:
        raise ValueError(f"{name}={value!r:.60} is no number within ±{_MOST:g}")
    return float(value)
