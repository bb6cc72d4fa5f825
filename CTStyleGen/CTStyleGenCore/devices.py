"""What is computed on, and how: device, precision, layout in memory, and what to do where that is not enough."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch

from .errors import InputError, OutOfMemory, is_out_of_memory

Network = TypeVar("Network", bound=torch.nn.Module)
Precision = Literal["float32", "bfloat16"]
PRECISIONS = ("auto", "float32", "bfloat16")
torch.backends.cudnn.allow_tf32 = False  # else a GPU's float32 convolutions have ten bits behind the point


@dataclass(frozen=True)
class Computing:
    """How a run computes, as far as it is not the recipe's: the results are the same but for rounding."""

    device: str = "cpu"
    precision: Precision = "float32"  # of the networks' passes; Gram matrices, losses and weights are float32 always
    at_once: int | None = None  # slices of a training step that are in memory at once; None: all

    def with_less_memory(self, batch: int) -> "Computing | None":
        """The same with half of a batch's slices at once; after one alone, on the CPU; None: there is no less."""
        if (at_once := self.at_once or batch) > 1:
            return replace(self, at_once=at_once // 2)
        if self.device == "cpu":
            return None
        return replace(self, device="cpu", precision=self.precision if _has_bfloat16("cpu") else "float32")

    def passes(self) -> torch.autocast:
        """The context that networks run in."""
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.precision == "bfloat16")


def choose_precision(name: str, device: str) -> Precision:
    """The precision of that name; "auto" is bfloat16 where the hardware multiplies in it. Raises InputError."""
    if name not in PRECISIONS:
        raise InputError(f"There is no precision {name!r}: choose from {', '.join(PRECISIONS)}.")
    if name == "float32" or (name == "auto" and not _has_bfloat16(device)):
        return "float32"
    return "bfloat16"


def _has_bfloat16(device: str) -> bool:
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)  # from Ampere on; older ones emulate it
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def placed(network: Network, device: str, channels_last: bool = True) -> Network:
    """The network on its device: channels last in memory on CUDA, and where ``channels_last`` says so on a CPU.

    On a CPU, instance normalization copies what is not contiguous: networks with it are quicker as they are.
    """
    network = network.to(device)
    if channels_last or torch.device(device).type == "cuda":
        return network.to(memory_format=torch.channels_last)
    return network


@contextmanager
def memory_told(what_to_do: str) -> Iterator[None]:
    """Turns a lack of memory in the block into OutOfMemory, whose sentence ends with ``what_to_do``."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"The memory is not enough: {what_to_do}.") from error


def free_memory() -> None:
    """Gives back what is not in use any more; a GPU's memory stays with PyTorch else."""
    gc.collect()
    torch.cuda.empty_cache()  # does nothing without CUDA
