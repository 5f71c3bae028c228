"""Checkpoints that survive a kill: tensors in safetensors, the rest in JSON, swapped in as one folder.

A checkpoint holds everything the next step depends on, so a resumed run is bit-identical to one never stopped. No path,
device or machine stands in it: copied elsewhere, it is resumed there. Tensors that would make a large file lie in
several, so that a checkpoint can be carried where single files are limited.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from prophy.files import check_file, replace_folder
from prophy.schema import read_json

if TYPE_CHECKING:
    import torch

MOST_BYTES = 2**28  #: of a checkpoint's state.json: without its tensors
#: anything made of dicts, lists, tensors and JSON scalars, as ``state_dict()`` returns
State: TypeAlias = "dict | list | tuple | torch.Tensor | str | int | float | bool | None"

FILE_BYTES = 15 * 2**20  #: of tensors in one file, but for a single larger tensor
_ONE_FILE = "tensors.safetensors"  # of all tensors, in checkpoints that do not list their files


def _flatten(state: State, path: str, tensors: dict[str, torch.Tensor]) -> Any:
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


def _restore(plan: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(plan, dict):
        if "__tensor__" in plan:
            return tensors[plan["__tensor__"]]
        return {key: _restore(value, tensors) for key, value in plan["__dict__"]}
    if isinstance(plan, list):
        return [_restore(value, tensors) for value in plan]
    return plan


def _divided(tensors: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """The tensors of each file, in order."""
    parts: list[dict[str, torch.Tensor]] = [{}]
    room = FILE_BYTES
    for name, tensor in tensors.items():
        if parts[-1] and tensor.nbytes > room:
            parts.append({})
            room = FILE_BYTES
        parts[-1][name] = tensor
        room -= tensor.nbytes
    if len(parts) == 1:
        return {_ONE_FILE: parts[0]}
    return {f"tensors-{i:03d}-of-{len(parts):03d}.safetensors": part for i, part in enumerate(parts, 1)}


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
    files = _divided(tensors)
    for name, part in files.items():
        save_file(part, new / name)
    (new / "state.json").write_text(json.dumps({**plan, "files": list(files)}))
    for name in (*files, "state.json"):
        with open(new / name, "rb") as file:
            os.fsync(file.fileno())
    replace_folder(new, folder)


def load_checkpoint(folder: Path, needed: Iterable[str] = ()) -> dict[str, Any] | None:
    """Read the newest complete checkpoint, as it was given to :func:`save_checkpoint`, or ``None`` if there is none.

    Args:
        folder: of the checkpoint.
        needed: what its state must hold.

    Raises:
        ValueError: the checkpoint is damaged, was not copied whole, or lacks what is needed. One line.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    for candidate in (folder, folder.with_name(folder.name + ".old")):
        if (candidate / "state.json").exists():
            try:
                plan = read_json(candidate / "state.json", MOST_BYTES)
                files = [Path(name).name for name in plan.get("files", [_ONE_FILE])]
                if missing := [name for name in files if not (candidate / name).is_file()]:
                    raise ValueError(f"it lacks {', '.join(missing)}; copy the folder whole")
                tensors = {}
                for name in files:
                    tensors.update(load_file(check_file(candidate / name)))
                state = _restore(plan, tensors)
                lacking = set(needed) - state.keys()
            except Exception as error:
                raise ValueError(f"checkpoint {candidate} is damaged ({error}): delete it to start again") from error
            if lacking:
                raise ValueError(
                    f"checkpoint {candidate} is of another kind of training (it lacks {', '.join(sorted(lacking))}): "
                    "choose another folder"
                )
            return state
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
    """Draw on as :func:`random_state` found it; a device that it does not know draws anew.

    Raises:
        ValueError: it is no such state. One line.
    """
    import torch

    try:
        torch.set_rng_state(state["cpu"])
        if device.type == "cuda" and "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"], device)
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"the checkpoint's random state is damaged ({error}): delete it to start again") from error


class Saved(NamedTuple):
    """A checkpoint without its tensors: the step it holds, when it was written, in seconds since the epoch, and what it
    notes of its inputs, see :class:`prophy.training.run_state.Inputs`; None where an older release noted nothing.
    """

    step: int
    when: float
    data: str | None = None
    backbone: str | None = None
    initial: str | None = None
    held_out: str | None = None
    base_config: dict[str, Any] | None = None


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
            names = ("data", "backbone", "initial", "held_out", "base_config")
            noted = (_restore(state.get(name), {}) for name in names)
            return Saved(int(state["step"]), path.stat().st_mtime, *noted)
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError, OverflowError, OSError):
            raise ValueError(f"checkpoint {candidate.name} is damaged: delete it to start again") from None
    return None
