"""Checkpoints that survive a kill: tensors in safetensors, the rest in JSON, swapped in as one folder.

A checkpoint holds everything the next step depends on, so a resumed run is bit-identical to one never stopped.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from prophy.files import check_file, replace_folder
from prophy.schema import read_json

if TYPE_CHECKING:
    import torch

MOST_BYTES = 2**28  #: of a checkpoint's state.json: without its tensors
#: anything made of dicts, lists, tensors and JSON scalars, as ``state_dict()`` returns
State: TypeAlias = "dict | list | tuple | torch.Tensor | str | int | float | bool | None"


def _flatten(state: State, path: str, tensors: dict[str, torch.Tensor]) -> State:
    """Move the tensors of ``state`` into ``tensors``, leaving JSON with their names."""
    import torch

    if isinstance(state, torch.Tensor):
        tensors[path] = state.detach().contiguous().clone()
        return {"__tensor__": path}
    if isinstance(state, dict):
        return {"__dict__": [[key, _flatten(value, f"{path}/{key}", tensors)] for key, value in state.items()]}
    if isinstance(state, list | tuple):
        return [_flatten(value, f"{path}/{i}", tensors) for i, value in enumerate(state)]
    return state


def _restore(plan: State, tensors: dict[str, torch.Tensor]) -> State:
    if isinstance(plan, dict):
        if "__tensor__" in plan:
            return tensors[plan["__tensor__"]]
        return {key: _restore(value, tensors) for key, value in plan["__dict__"]}
    if isinstance(plan, list):
        return [_restore(value, tensors) for value in plan]
    return plan


def save_checkpoint(folder: Path, state: dict[str, State]) -> None:
    """Write ``state`` so that ``folder`` holds either the old checkpoint or the new one, whenever the process dies."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    if old.exists() and not folder.exists():  # an earlier save died between its two renames: old is all there is
        os.replace(old, folder)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    tensors: dict[str, torch.Tensor] = {}
    plan = _flatten(state, "", tensors)
    save_file(tensors, new / "tensors.safetensors")
    (new / "state.json").write_text(json.dumps(plan))
    for name in ("tensors.safetensors", "state.json"):
        with open(new / name, "rb") as file:
            os.fsync(file.fileno())
    replace_folder(new, folder)


def load_checkpoint(folder: Path) -> dict[str, State] | None:
    """Read the newest complete checkpoint, or ``None`` if there is none.

    Raises:
        ValueError: the checkpoint is damaged.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    for candidate in (folder, folder.with_name(folder.name + ".old")):
        if (candidate / "state.json").exists():
            try:
                plan = read_json(candidate / "state.json", MOST_BYTES)
                return _restore(plan, load_file(check_file(candidate / "tensors.safetensors")))
            except Exception as error:
                raise ValueError(f"checkpoint {candidate} is damaged ({error}): delete it to start again") from error
    return None


def refuse_older_layout(folder: Path) -> None:
    """Refuse a folder whose checkpoint lies where the embedded model's stages kept theirs in older releases.

    Raises:
        ValueError: it does. One line.
    """
    if (Path(folder) / "state.json").is_file():
        raise ValueError(
            f"{folder} holds the checkpoint of an older release, which this one cannot resume: finish it with that "
            "release, or choose another folder"
        )


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The state of torch's generators, of the CPU's and of the device's own."""
    import torch

    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Draw on as :func:`random_state` found it; a device that it does not know draws anew."""
    import torch

    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


class Saved(NamedTuple):
    """A checkpoint without its tensors: the step it holds, when it was written, in seconds since the epoch, and what it
    notes of its inputs: the fingerprint of its data and the digest of the backbone that it started from.
    """

    step: int
    when: float
    data: str | None = None
    backbone: str | None = None


def saved_in(folder: Path) -> Saved | None:
    """What the newest complete checkpoint holds, or ``None`` if there is none. Reading it needs no torch.

    Raises:
        ValueError: the checkpoint is damaged.
    """
    folder = Path(folder)
    for candidate in (folder, folder.with_name(folder.name + ".old")):
        path = candidate / "state.json"
        try:
            state = dict(read_json(path, MOST_BYTES)["__dict__"])
            return Saved(int(state["step"]), path.stat().st_mtime, state.get("data"), state.get("backbone"))
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError, OverflowError, OSError):
            raise ValueError(f"checkpoint {candidate.name} is damaged: delete it to start again") from None
    return None
