"""How a clip was computed, besides its settings and its weights' digest: a value, saved with the run (no torch)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

_SHA256 = re.compile(r"[0-9a-f]{64}")
_LONGEST = 200_000  # characters of the JSON; a scheduler's configuration has about a thousand
_TILED = "+tiling"


@dataclass(frozen=True)
class Adapter:
    """A LoRA, or another adapter, that acted.

    Attributes:
        part: of the pipeline that it adapted, such as ``transformer_2``.
        name: its own; made of its file's name where ProPhy loaded it.
        strength: factor of what it added, besides its own scale; the mean where layers differ.
        sha256: of its tensors and their scales.
    """

    part: str
    name: str
    strength: float
    sha256: str

    def __str__(self) -> str:
        where = "" if self.part == "transformer" else f" on {self.part}"
        return f"{self.name} at {self.strength:g}{where}"


@dataclass(frozen=True)
class Computation:
    """What computed a clip. Without a value: nothing is known, as of runs that 0.1.0 made.

    Attributes:
        dtypes: of the weights, by part of the pipeline; with layerwise casting also what they were computed in.
        quantisation: the method, by part, of the quantised ones.
        attention: the backend, by transformer.
        caching: diffusers' caching between steps, by transformer.
        profile: the memory profile; of it only the tiling of the autoencoder can change frames.
        scheduler: its class.
        scheduler_config: its configuration.
        adapters: that acted, in their order.
        compilation: what compiled a transformer, or blocks of it.
        configuration: of the pipeline itself and of its other parts: the tensors do not say what is done with them.
        foreign: by part, hooks and modules that are neither its own nor a known library's: named, for what they compute
            cannot be digested.
        device: that computed: its kind, and in brackets an accelerator's name or a CPU's instructions.
        precision: what torch might multiply float32 in instead on that device, by operation.

    Raises:
        ValueError: a field has another type, or all are too long.
    """

    dtypes: dict[str, str] = field(default_factory=dict)
    quantisation: dict[str, str] = field(default_factory=dict)
    attention: dict[str, str] = field(default_factory=dict)
    caching: dict[str, str] = field(default_factory=dict)
    profile: str = ""
    scheduler: str = ""
    scheduler_config: dict[str, Any] = field(default_factory=dict)
    adapters: tuple[Adapter, ...] = ()
    compilation: dict[str, str] = field(default_factory=dict)
    configuration: dict[str, dict[str, Any]] = field(default_factory=dict)
    foreign: dict[str, str] = field(default_factory=dict)
    device: str = ""
    precision: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("dtypes", "quantisation", "attention", "caching", "compilation", "foreign", "precision"):
            value = getattr(self, name)
            _require(isinstance(value, dict) and all(map(_is_text, value.values())), f"{name} must be texts by part")
        for name in ("profile", "scheduler", "device"):
            _require(_is_text(getattr(self, name)), f"{name} must be a text")
        for name in ("scheduler_config", "configuration"):
            value = getattr(self, name)
            _require(isinstance(value, dict) and _is_plain(value), f"{name} must be plain JSON by name, without NaN")
        _require(all(isinstance(one, dict) for one in self.configuration.values()), "configuration must be by part")
        _require(isinstance(self.adapters, tuple), "adapters must be a list")
        for one in self.adapters:
            _require(isinstance(one, Adapter) and _is_text(one.part) and _is_text(one.name), "an adapter needs names")
            _require(_is_number(one.strength), "an adapter's strength must be a number")
            _require(_is_text(one.sha256) and bool(_SHA256.fullmatch(one.sha256)), "an adapter needs its sha256")
        _require(len(json.dumps(self.to_json())) <= _LONGEST, f"a computation has at most {_LONGEST} characters")

    @classmethod
    def from_json(cls, document: Any) -> Computation:
        """What :meth:`to_json` gave.

        Raises:
            ValueError: anything else.
        """
        _require(isinstance(document, Mapping), "a computation must be an object")
        names = {one.name for one in fields(cls)}
        _require(document.keys() <= names, f"a computation holds {', '.join(sorted(names))}")
        adapters = document.get("adapters", [])
        _require(isinstance(adapters, list), "adapters must be a list")
        for one in adapters:
            known = {each.name for each in fields(Adapter)}
            _require(isinstance(one, Mapping) and one.keys() == known, f"an adapter holds {', '.join(sorted(known))}")
        return cls(**{**document, "adapters": tuple(Adapter(**one) for one in adapters)})

    def to_json(self) -> dict[str, Any]:
        """Only what is known: empty for the default."""
        plain = {**asdict(self), "adapters": [asdict(one) for one in self.adapters]}
        return {name: value for name, value in plain.items() if value}

    @property
    def is_known(self) -> bool:
        """Whether the run's release noted it."""
        return bool(self.scheduler)

    @property
    def _kind(self) -> str:
        """Of the device; empty where an older release noted none."""
        return self.device.partition(" ")[0]

    def other_device(self, other: Computation) -> str:
        """In words, that another device computes than in ``other``; empty: it does not, or one is not known."""
        if "" in (self.device, other.device) or self.device == other.device:
            return ""
        return f"on {self.device} instead of {other.device}"

    def differences(self, other: Computation, *, weights: bool = True) -> list[str]:
        """In words, what here is otherwise than in ``other`` and can change frames; empty where one is not known.

        Args:
            other: of other clips.
            weights: False leaves adapters out: the models may be others.
        """
        if not (self.is_known and other.is_known):
            return []
        said = []
        if weights and self.adapters != other.adapters:
            said.append(f"with {_listed(self.adapters)} instead of {_listed(other.adapters)}")
        for what, ours, theirs in (
            ("in", self.dtypes, other.dtypes),
            ("quantised by", self.quantisation, other.quantisation),
            ("with attention by", self.attention, other.attention),
            ("with caching by", self.caching, other.caching),
            ("compiled by", self.compilation, other.compilation),
            ("changed by", self.foreign, other.foreign),
        ):
            for part in sorted(ours.keys() & theirs.keys() if what == "in" else ours.keys() | theirs.keys()):
                here, there = ours.get(part, "nothing"), theirs.get(part, "nothing")
                if here != there:
                    said.append(f"{part} {what} {here} instead of {there}")
        if self._kind == other._kind != "":  # between kinds of devices, what they can do differs anyway
            for operation in sorted(self.precision.keys() | other.precision.keys()):
                here, there = (one.precision.get(operation, "full precision") for one in (self, other))
                if here != there:
                    said.append(f"with the {operation} of float32 in {here} instead of {there}")
        if self.profile.endswith(_TILED) != other.profile.endswith(_TILED):
            said.append(f"decoded in the profile {self.profile} instead of {other.profile}")
        if self.scheduler != other.scheduler:
            said.append(f"with {self.scheduler} instead of {other.scheduler}")
        else:
            ours, theirs = self.scheduler_config, other.scheduler_config
            for key in _differing(ours, theirs):
                said.append(f"with the scheduler's {key} {ours[key]} instead of {theirs[key]}")
        for part in sorted(self.configuration.keys() & other.configuration.keys()) if weights else ():
            ours, theirs = self.configuration[part], other.configuration[part]
            if keys := _differing(ours, theirs):
                more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
                said.append(
                    f"with the {part}'s {keys[0]} {_short(ours[keys[0]])} instead of {_short(theirs[keys[0]])}{more}"
                )
        return said


def _differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """What both say otherwise; a release of diffusers may know more than another."""
    return sorted(key for key in ours.keys() & theirs.keys() if ours[key] != theirs[key])


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _listed(adapters: tuple[Adapter, ...]) -> str:
    return "LoRA " + " and ".join(map(str, adapters)) if adapters else "no LoRA"


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_text(key) and _is_plain(each) for key, each in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int) or _is_text(value) or _is_number(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(value: Any) -> bool:
    # a lone surrogate is valid in a JSON escape and in a str, but in no file
    return isinstance(value, str) and not re.search(r"[\ud800-\udfff]", value)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
