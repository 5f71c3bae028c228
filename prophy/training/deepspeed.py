"""The DeepSpeed strategy, ZeRO 1 and 2: optimiser states, and with 2 gradients, are sharded over the processes.

Its checkpoints are pickles that fit one number of processes. So none of them is used: whole tensors go into ours and
come out of them, and a training may go on with any other strategy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from prophy.data.tables import read_text
from prophy.schema import parsed
from prophy.training.recipe import Recipe
from prophy.training.trainable import TrainableModule, trained

_OURS = ("optimizer", "scheduler", "fp16", "bf16", "amp", "gradient_clipping", "train_batch_size")
_STATES = ("exp_avg", "exp_avg_sq")


class DeepSpeedStrategy:
    """See :class:`prophy.training.strategies.Strategy`. AdamW; what is computed in bfloat16 is autocast's to say, as
    ever.

    Args:
        module: to train.
        recipe: rates, clipping, accumulation.
        device: of this process.
        config: JSON of DeepSpeed's settings; those that the recipe decides must not be in it.

    Raises:
        ValueError: DeepSpeed is not installed, or a configuration that cannot be. One line.
    """

    def __init__(self, module: TrainableModule, recipe: Recipe, device: torch.device, config: Path) -> None:
        settings = read_settings(config)
        if recipe.optimiser.kind != "adamw":
            raise ValueError("DeepSpeed needs AdamW: use --set optimiser.kind=adamw, or leave --deepspeed out")
        if recipe.backbone_optimiser is not None:
            raise ValueError("DeepSpeed clips all gradients together: leave backbone_optimiser or --deepspeed out")
        try:
            import deepspeed
        except ImportError as error:
            raise ValueError("deepspeed is not installed: pip install deepspeed, or leave --deepspeed out") from error
        if not torch.distributed.is_initialized():
            raise ValueError(
                "DeepSpeed needs processes started by torchrun: torchrun --nproc_per_node 1 is one of them"
            )
        module.to(device)
        self.weights = trained(module)
        names = ("branch", "transformer")
        parts = {part: [p for name, p in self.weights.items() if name.startswith(part)] for part in names}
        parts = {part: parameters for part, parameters in parts.items() if parameters}
        groups = [{"params": parameters, "lr": 0.0} for parameters in parts.values()]
        adamw = torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=recipe.optimiser.weight_decay)
        self.model, *_ = deepspeed.initialize(
            model=module,
            optimizer=adamw,
            model_parameters=list(self.weights.values()),
            config={
                **settings,
                "train_micro_batch_size_per_gpu": 1,  # its own arithmetic alone; the batches are ours
                "gradient_accumulation_steps": recipe.accumulation,
                "gradient_clipping": recipe.optimiser.clip,
                "zero_allow_untested_optimizer": True,
            },
        )
        self._states = adamw.state
        self._allocate_states()
        self.optimisers = {
            part: _Spread(parameters, adamw.param_groups[i], recipe.optimiser.rate, self)
            for i, (part, parameters) in enumerate(parts.items())
        }

    @contextmanager
    def part(self, last: bool) -> Iterator[None]:
        """One accumulated part; DeepSpeed counts them itself."""
        yield
        if not last:
            self.model.step()

    def backward(self, loss: torch.Tensor) -> None:
        self.model.backward(loss)

    def norms(self) -> dict[str, float]:
        """None: gradients lie spread, and gathering them would cost a step's exchange again."""
        return {}

    def clip(self) -> float:
        """The norm of all gradients; the update clips them, as DeepSpeed was told."""
        return float(self.model.optimizer.scaled_global_norm())

    def update(self, shares: dict[str, float]) -> None:
        for part, optimiser in self.optimisers.items():
            optimiser.set_rate(shares[part])
        self.model.step()

    @torch.no_grad()
    def restore(self, weights: dict[str, torch.Tensor], optimisers: dict[str, list[dict]]) -> None:
        """Go on from whole tensors."""
        for key, parameter in self.weights.items():
            parameter.copy_(weights[key])
        self.model.optimizer.refresh_fp32_params()
        for part, optimiser in self.optimisers.items():
            optimiser.load_state_dict(optimisers[part])

    def steps(self) -> float:
        """Updates that AdamW has counted."""
        return next((float(state["step"]) for state in self._states.values()), 0.0)

    def _allocate_states(self) -> None:
        """Now, and for every group: DeepSpeed would wait for a step, and then link those of its first group only."""
        from deepspeed.utils import lazy_init_hp_params_optimizer_state

        zero = self.model.optimizer
        for whole_group, flat in zip(zero.bit16_groups, zero.single_partition_of_fp32_groups, strict=True):
            self._states[flat] = {
                "step": torch.zeros((), device=flat.device),
                **{name: torch.zeros_like(flat) for name in _STATES},
            }
            lazy_init_hp_params_optimizer_state(whole_group, flat, self._states)
        zero._hp_optimizer_states_linked = True

    def _set_steps(self, count: float) -> None:
        for state in self._states.values():
            state["step"].fill_(count)


class _Spread:
    """A group of DeepSpeed's AdamW, whose state reads and writes as that of a ``FusedAdamW``: whole tensors."""

    def __init__(self, parameters: list[nn.Parameter], group: dict, rate: float, strategy: DeepSpeedStrategy) -> None:
        self.parameters = parameters
        self._group, self._rate, self._strategy = group, rate, strategy

    def set_rate(self, share: float) -> None:
        self._group["lr"] = self._rate * share

    def state_dict(self) -> list[dict]:
        """All processes must call it."""
        from deepspeed.utils import safe_get_full_optimizer_state

        step = torch.tensor(self._strategy.steps())
        states = {
            i: {"step": step.clone(), **{name: safe_get_full_optimizer_state(p, name) for name in _STATES}}
            for i, p in enumerate(self.parameters)
        }
        plain = torch.optim.AdamW(self.parameters, lr=self._group["lr"], fused=True).state_dict()["param_groups"]
        kept = {name: self._group[name] for name in ("lr", "betas", "weight_decay")}
        return [{"state": states, "param_groups": [{**plain[0], **kept}]}]

    def load_state_dict(self, state: list[dict]) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state

        (one,) = state
        for i, parameter in enumerate(self.parameters):
            for name in _STATES:
                safe_set_full_optimizer_state(parameter, one["state"][i][name].to(parameter.device), name)
        self._strategy._set_steps(float(one["state"][0]["step"]))


def read_settings(config: Path) -> dict:
    """DeepSpeed's settings of a file.

    Raises:
        ValueError: no file, no JSON of such settings, or one of them is the recipe's to decide. One line.
    """
    try:
        settings = parsed(read_text(Path(config)))
    except FileNotFoundError:
        raise ValueError(f"{config} does not exist: give a DeepSpeed configuration") from None
    except ValueError as error:
        raise ValueError(f"{config} is no JSON ({error}): give a DeepSpeed configuration") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{config} must hold an object: give a DeepSpeed configuration")
    if decided := sorted(settings.keys() & set(_OURS)):
        raise ValueError(f"{config} sets {', '.join(decided)}, which the recipe decides: leave it out")
    zero = settings.get("zero_optimization")
    stage = zero.get("stage") if isinstance(zero, dict) else None
    if stage not in (1, 2):
        raise ValueError(f"{config} has zero_optimization.stage={stage}: use 1 or 2; --fsdp shards weights too")
    return settings
