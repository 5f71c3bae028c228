"""``run.json``: what a training says of itself when it begins. Written and read here alone; no torch is needed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from math import isclose
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter

from prophy.files import read_regular, sha256, write_text
from prophy.schema import decoded

RUN_FILE = "run.json"

_LONGEST = 200  # characters of a name that is shown
_MOST_BYTES = 2**26
_COUNTED = 2**53  # below it a float, a browser's too, counts exactly

Count = Annotated[int, Field(ge=0, lt=_COUNTED)]


@dataclass(frozen=True)
class Transformer:
    """What it takes to build a transformer again: its class and its configuration, as diffusers saves them."""

    class_name: Annotated[str, Field(alias="class")]
    config: dict[str, Any]


@dataclass(frozen=True)
class BaseConfig:
    """What is learnt beside a base depends on besides its weights.

    Attributes:
        scheduler: its class.
        scheduler_config: its configuration, which says what is predicted.
        latent_scale: see :func:`prophy.backbones.autoencoder.scale_of`.
    """

    scheduler: str
    scheduler_config: dict[str, Any]
    latent_scale: tuple[float, ...]

    def differences(self, before: BaseConfig) -> list[str]:
        """In words, what is otherwise than ``before``; of configurations what both say, for releases differ."""
        said = []
        if self.scheduler != before.scheduler:
            said.append(f"scheduler was {before.scheduler}, now {self.scheduler}")
        now, then = self.scheduler_config, before.scheduler_config
        for name in sorted(now.keys() & then.keys()):
            if now[name] != then[name]:
                said.append(f"{name} of the scheduler was {then[name]!r:.40}, now {now[name]!r:.40}")
        if not _alike(self.latent_scale, before.latent_scale):
            said.append("scale of its latents is another")
        return said


def _alike(scale: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Statistics that are measured twice differ in their last digits."""
    return len(scale) == len(other) and all(map(partial(isclose, rel_tol=1e-3, abs_tol=1e-3), scale, other))


@dataclass(frozen=True, kw_only=True)
class About:
    """What ``run.json`` says of a run.

    Attributes:
        recipe_name: empty if it has none.
        base: the base model as it was named, which may be a path of this machine.
        base_config: of the base; None where an older release noted none, and in runs of ``fit``.
        initial: what the weights started from instead of the base's; empty: nothing else.
        recipe: its record, see :meth:`prophy.training.recipe.Recipe.record`; other fields in runs of
            :func:`prophy.training.fit.fit`.
        data: fingerprint of the training set; empty in runs of ``fit``.
        processes: at the start.
        transformer: that was trained, or beside the branch that was; None in runs of ``fit``.
        branch: configuration of the branch that was trained; None without one.
        trained_parameters: how many.

    Raises:
        ValueError: the recipe does not say how many steps there are, or its batch size is no number.
    """

    # what another release notes besides is left out
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    recipe_name: str
    base: str
    base_config: BaseConfig | None = None
    initial: str = ""
    recipe: dict[str, Any]
    data: str = ""
    processes: Count
    transformer: Transformer | None = None
    branch: dict[str, Any] | None = None
    trained_parameters: Count

    def __post_init__(self) -> None:
        for name, value in {"steps": self.recipe.get("steps", ""), "batch": self.recipe.get("batch", 0)}.items():
            is_count = type(value) is int and 0 <= value < _COUNTED
            if not is_count and not (name == "batch" and value is None):
                raise ValueError(f"recipe.{name} counts nothing")

    @property
    def steps(self) -> int:
        """Of the optimiser, in all."""
        return self.recipe["steps"]

    @property
    def batch(self) -> int | None:
        """Its size; None if that changes on the way."""
        return self.recipe.get("batch")

    @property
    def start(self) -> str:
        """A digest of the base as it was named and of the training set: equal where two runs began alike."""
        return sha256(f"{self.base}\n{self.data}")

    @property
    def shown_name(self) -> str:
        """The recipe's name, cut if it is long."""
        return self.recipe_name[:_LONGEST]

    @property
    def shown_base(self) -> str:
        """The base model's hub id, or the name of its folder, never a path of this machine."""
        base = self.base[:_LONGEST]
        is_hub_id = re.fullmatch(r"[\w.-]+/[\w.-]+", base) and not base.startswith((".", "~"))
        return base if is_hub_id else Path(base).name

    def write(self, folder: Path) -> None:
        """Write the ``run.json`` of a run's folder, which is made if it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / RUN_FILE, _FORM.dump_json(self, by_alias=True, indent=2).decode() + "\n")

    @classmethod
    def read(cls, folder: Path) -> About:
        """Read the ``run.json`` of a run's folder.

        Raises:
            ValueError: it is missing or damaged. One line, which names no path but the folder's own name.
        """
        try:
            return decoded(cls, read_regular(folder / RUN_FILE, _MOST_BYTES))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ValueError(
                f"{RUN_FILE} of {folder.name} is damaged ({str(reason)[:_LONGEST]}), so recipe and steps are not "
                "known: train into a new folder"
            ) from None


_FORM = TypeAdapter(About)
