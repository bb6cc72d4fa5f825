"""A training run, saved so that it can be taken up again: one safetensors file beside the model it works towards."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .errors import InputError
from .files import parse_json, written_beside

_ADAM = ("step", "exp_avg", "exp_avg_sq")  # what it keeps for a parameter; SGD without momentum keeps nothing


def checkpoint_path(model: Path) -> Path:
    """Where the checkpoint of the run that writes ``model`` lies."""
    return model.with_name(model.name + ".checkpoint")


def flat_state(parts: dict[str, nn.Module | torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The tensors of networks and optimizers by one flat name each: part / parameter, or part / parameter / moment."""
    state: dict[str, Tensor] = {}
    for part, owner in parts.items():
        if isinstance(owner, nn.Module):
            state |= {f"{part}/{name}": t for name, t in owner.state_dict().items()}
        else:
            moments = owner.state_dict()["state"]
            state |= {f"{part}/{i}/{key}": t for i, each in moments.items() for key, t in each.items()}
    return state


def load_flat_state(parts: dict[str, nn.Module | torch.optim.Optimizer], state: dict[str, Tensor]) -> None:
    """The inverse of ``flat_state``. Raises KeyError, ValueError or RuntimeError for another network's state."""
    for part, owner in parts.items():
        own = {name.removeprefix(f"{part}/"): t for name, t in state.items() if name.startswith(f"{part}/")}
        if isinstance(owner, nn.Module):
            owner.load_state_dict(own)
            continue
        owner.load_state_dict({"state": _moments(owner, own), "param_groups": owner.state_dict()["param_groups"]})


def _moments(owner: torch.optim.Optimizer, own: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """An optimizer's moments by the index of their parameter. Raises ValueError for those that can't be its own, which
    PyTorch itself would compute with, beyond their end.
    """
    parameters = [p for group in owner.param_groups for p in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for name, t in own.items():
        index, _, key = name.partition("/")
        if not index.isdecimal() or int(index) >= len(parameters):
            raise ValueError(f"a moment {name} of no parameter")
        parameter = parameters[int(index)].detach()
        if key not in _ADAM or t.shape != (() if key == "step" else parameter.shape):
            raise ValueError(f"a moment {name} of another shape")
        # A copy, or it would keep the file open; laid out as the parameter, which fused kernels take for granted.
        moments.setdefault(int(index), {})[key] = t.clone() if key == "step" else torch.empty_like(parameter).copy_(t)
    if any(len(each) < len(_ADAM) for each in moments.values()):
        raise ValueError("some of a parameter's moments alone")
    return moments


def write_checkpoint(path: Path, state: dict[str, Tensor], run: dict[str, Any]) -> None:
    """Writes tensors and the run's description, whole or not at all."""
    with written_beside(path) as beside:
        save_file({name: t.detach().cpu().contiguous() for name, t in state.items()}, beside, {"run": json.dumps(run)})


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What ``write_checkpoint`` wrote. Raises InputError when there is none or it can't be read."""
    if not path.is_file():
        raise InputError(f"There is no checkpoint {path} to resume: train without --resume.")
    try:
        with safe_open(path, "pt") as file:
            run = dict(parse_json(file.metadata()["run"]))
            return {name: file.get_tensor(name) for name in file.keys()}, run  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"The checkpoint {path} can't be read: remove it and train again.") from error
