"""The saved state of a training: every tensor gathered in full, so that any number of processes can resume it."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from safetensors import SafetensorError
from torch import nn

from prophy.data.examples import CONTENT, DRAWN, TEXT
from prophy.training.about import RUN_FILE, About, BaseConfig, Transformer
from prophy.training.checkpoints import (
    load_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
    saved_in,
)
from prophy.training.ema import Ema
from prophy.training.fsdp import distribute_like, gather_full
from prophy.training.progress import Progress, TrainingStopped
from prophy.training.recipe import Recipe, difference
from prophy.training.run_folder import CHECKPOINT
from prophy.training.strategies import Strategy
from prophy.training.trainable import TrainableModule

log = logging.getLogger(__name__)

#: what a checkpoint must hold to be resumed
_STATE = ("recipe", "step", "mean_loss", "random", "weights", "ema", "optimisers")


#: what older releases did not note in a fingerprint, by its mark there
_NOTED = {CONTENT: "content of its clips", TEXT: "text encoder", DRAWN: "picture of what the worlds draw"}


@dataclass(frozen=True)
class Inputs:
    """What a run learns from, each by its content.

    Attributes:
        data: fingerprint of the training set, see :class:`prophy.data.examples.Examples`.
        backbone: see :func:`weights_digest`; None: the run begins with random weights.
        initial: digest of the weights that it starts from instead of the base's; empty: the base's; None: not known,
            of a run that an older release began.
        held_out: fingerprint of the clips that it is validated on; empty: none.
        base_config: of the base; None: not known.
    """

    data: str
    backbone: str | None = None
    initial: str | None = ""
    held_out: str = ""
    base_config: BaseConfig | None = None


def refuse_other_inputs(out: Path, now: Inputs) -> Inputs:
    """Refuse to resume a run on other inputs than it began with, before anything else is compared.

    Held-out clips change nothing that is learnt: other ones are named. A run that began with ``initial`` weights has
    them behind it, and is resumed without.

    Args:
        out: the run's folder.
        now: what it shall go on with.

    Returns:
        What its next checkpoint notes.

    Raises:
        ValueError: its checkpoint is of other data, another base, such as one of another scheduler, or other initial
            weights; or damaged. One line.
    """
    saved = saved_in(out / CHECKPOINT)
    if saved is None:
        return now
    before = next((mark for mark in _NOTED if saved.data == now.data.partition(mark)[0] != now.data), None)
    if before is not None:
        log.warning("%s was begun by a release that noted no %s: it is not compared", out, _NOTED[before])
    elif saved.data != now.data:
        raise ValueError(
            f"{out} was trained on other data ({saved.data}, now {now.data}): give the same --data, or choose another "
            "--out"
        )
    if saved.backbone not in (None, now.backbone):
        raise ValueError(f"{out} began with a base of other weights: give the same --model, or choose another --out")
    _refuse_other_base_config(out, saved.base_config, now.base_config)
    if now.initial and saved.initial is None:
        log.warning("%s was begun by a release that noted no --initial: it is not compared", out)
    elif now.initial and saved.initial != now.initial:
        raise ValueError(
            f"{out} began with other weights than those of --initial: leave it out to resume, or choose another --out"
        )
    if saved.held_out and now.held_out not in ("", saved.held_out):
        log.warning(
            "%s was validated on other clips until step %d (%s, now %s): its losses before and after do not compare",
            out,
            saved.step,
            saved.held_out,
            now.held_out,
        )
    return replace(now, initial=saved.initial, held_out=now.held_out or saved.held_out or "")


def _refuse_other_base_config(out: Path, before: dict[str, Any] | None, now: BaseConfig | None) -> None:
    if now is None:
        return
    if before is None:
        log.warning("%s was begun by a release that noted no scheduler and no scale of latents: not compared", out)
        return
    try:
        then = BaseConfig(**{**before, "latent_scale": tuple(before["latent_scale"])})
        others = now.differences(then)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{out / CHECKPOINT} is damaged (base_config: {error}): delete it to start again") from None
    if others:
        raise ValueError(
            f"{out} began beside another base ({', '.join(others)}): give the same --model, or choose another --out"
        )


def weights_digest(module: nn.Module) -> str:
    """A digest of a module's weights and their names, wherever they were opened from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


class RunState:
    """What is written to a run's folder, and read from it to resume.

    Args:
        recipe: of this training.
        module: under training.
        strategy: that holds its weights.
        ema: their average.
        inputs: what it learns from.
        out: the run's folder.
        accelerator: of this process.
    """

    def __init__(
        self,
        recipe: Recipe,
        module: TrainableModule,
        strategy: Strategy,
        ema: Ema,
        inputs: Inputs,
        out: Path,
        accelerator: Accelerator,
    ) -> None:
        self._recipe, self._module, self._strategy, self._ema = recipe, module, strategy, ema
        self._inputs, self._out, self._accelerator = inputs, out, accelerator
        self._random: dict[str, torch.Tensor] | None = None
        self._last: int | None = None

    def resume(self, name: str, base: str, initial: str) -> Progress:
        """Load the checkpoint, if there is one; else describe the run in ``run.json``.

        Args:
            name: of the recipe, for the record.
            base: the base model, for the record.
            initial: what the weights start from instead of the base's, for the record.

        Raises:
            ValueError: the folder holds another training. One line.
        """
        state = load_checkpoint(self._out / CHECKPOINT, _STATE)
        if state is None:
            if self._accelerator.is_main_process:
                self._describe(name, base, initial)
            self._accelerator.wait_for_everyone()
            return Progress()
        self._refuse_another(state)
        about = About.read(self._out) if (self._out / RUN_FILE).is_file() else None
        if about is not None:
            self._refuse_other_transformer(about)
            if self._accelerator.is_main_process and about.recipe != self._recipe.record():  # it ends at another step
                replace(about, recipe=self._recipe.record()).write(self._out)
        with torch.no_grad():
            for key, parameter in self._strategy.weights.items():
                self._ema.average[key].copy_(distribute_like(state["ema"][key], parameter))
        self._strategy.restore(state["weights"], state["optimisers"])
        there, here = len(state["random"]), self._accelerator.num_processes
        if there != here:
            log.warning(
                "saved by %d processes, resumed by %d: clips, captions and noise stay the same; sums are made in "
                "another order, and any dropout draws anew",
                there,
                here,
            )
        else:
            self._random = state["random"][self._accelerator.process_index]
        self._last = state["step"]
        log.info("resumed at step %d", state["step"])
        return Progress(state["step"], state["mean_loss"])

    def restore_random_state(self) -> None:
        """Last of all, after everything that draws numbers while a run starts."""
        if self._random is not None:
            restore_random_state(self._random, self._accelerator.device)

    def save(self, progress: Progress) -> None:
        """Write the checkpoint. All processes must call it."""
        branch = {} if self._module.branch is None else self._module.branch.state_dict(prefix="branch.")
        states = gather_full(
            {
                "weights": self._strategy.weights,
                "still": {name: tensor for name, tensor in branch.items() if name not in self._strategy.weights},
                "ema": self._ema.average,
                "optimisers": {part: optimiser.state_dict() for part, optimiser in self._strategy.optimisers.items()},
            }
        )
        about: dict[str, Any] = {
            "recipe": self._recipe.record(),
            **asdict(self._inputs),
            "step": progress.step,
            "mean_loss": progress.mean_loss,
            "random": self.from_all([random_state(self._accelerator.device)]),
        }
        if self._accelerator.is_main_process:
            try:
                save_checkpoint(self._out / CHECKPOINT, {**about, **states})
            except (OSError, SafetensorError) as error:
                raise TrainingStopped(
                    f"the checkpoint of step {progress.step} cannot be written ({error}): {self.kept()}. "
                    "Make room on the disk and start again"
                ) from error
        self._last = progress.step
        self._accelerator.wait_for_everyone()

    def kept(self) -> str:
        """What a stopped training leaves."""
        if self._last is None:
            return "there is no checkpoint yet"
        return f"{self._out / CHECKPOINT} holds step {self._last}, whole"

    def from_all(self, here: list) -> list:
        """The lists of all processes, one after the other."""
        if self._accelerator.num_processes == 1:
            return here
        gathered: list = [None] * self._accelerator.num_processes
        dist.all_gather_object(gathered, here)
        return [one for part in gathered for one in part]

    def _refuse_another(self, state: dict[str, Any]) -> None:
        before = Recipe.from_record(state["recipe"])
        changed = difference(before, self._recipe)
        if changed and not self._recipe.continues(before, state["step"]):
            listed = ", ".join(f"{key} was {was!r}, now {now!r}" for key, (was, now) in changed.items())
            raise ValueError(f"{self._out} holds the training of another recipe ({listed}): choose another --out")

    def _refuse_other_transformer(self, about: About) -> None:
        """By its configuration: the same tensors in another number of heads compute something else."""
        if about.transformer is None:
            return
        then, now = about.transformer.config, _plain(self._module.transformer.config)
        others = [
            f"{name} was {then[name]!r:.40}, now {now[name]!r:.40}"
            for name in sorted(then)
            if now.get(name, then[name]) != then[name]
        ]
        if others:
            raise ValueError(
                f"{self._out} began beside another transformer ({', '.join(others)}): give the same --model, or choose "
                "another --out"
            )

    def _describe(self, name: str, base: str, initial: str) -> None:
        module = self._module
        About(
            recipe_name=name,
            base=base,
            base_config=self._inputs.base_config,
            initial=initial,
            recipe=self._recipe.record(),
            data=self._inputs.data,
            processes=self._accelerator.num_processes,
            transformer=Transformer(type(module.transformer).__name__, _plain(module.transformer.config)),
            branch=None if module.branch is None else _plain(module.branch.config),
            trained_parameters=sum(p.numel() for p in self._strategy.weights.values()),
        ).write(self._out)


def _plain(config: dict) -> dict[str, Any]:
    """A configuration as diffusers saves it: without what it notes for itself."""
    return json.loads(json.dumps({key: value for key, value in config.items() if not key.startswith("_")}))
