"""Several processes at one job, as ``torchrun`` starts them: which share is whose, and the sums over all.

Gradients are added up after the backward passes, in one message per network. DistributedDataParallel would hide a part
of that message behind the backward pass, but it ties every forward pass of a network to one backward pass of all its
weights; here the discriminator also runs without learning, and the generator's image is used twice.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from .errors import InputError, OutOfMemory, Stopped

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process's number among those at the job. The first one, 0, writes and reports."""

    rank: int = 0
    count: int = 1
    device: str = "cpu"  # where messages are passed

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process's items: every count-th."""
        return items[self.rank :: self.count]

    def add_up(self, tensors: "Sequence[Tensor]") -> None:
        """Puts in each tensor the sum of all processes' tensors at its place."""
        if self.count == 1:
            return
        import torch

        message = torch.cat([t.reshape(-1) for t in tensors])
        torch.distributed.all_reduce(message)
        for t, total in zip(tensors, message.split([t.numel() for t in tensors]), strict=True):
            t.copy_(total.view_as(t))

    def any(self, flag: bool) -> bool:
        """Whether any process's flag is set; the same answer in all. Waits for all."""
        if self.count == 1:
            return flag
        import torch

        flags = torch.tensor([float(flag)], device=self.device)
        torch.distributed.all_reduce(flags)
        return bool(flags.item())

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block that all processes leave at once, each by its own error or, where another has one, as stopped."""
        ended: Exception | None = None
        try:
            yield
        except (InputError, Stopped, OutOfMemory) as error:
            ended = error
        if self.any(ended is not None):
            raise ended or Stopped("Stopped, as another process has ended before its work was done.")

    def wait(self) -> None:
        """Until all processes have come here."""
        self.any(False)


def launched() -> Ranks:
    """Which process this is, by the environment variables that torchrun sets; alone without them."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    return Ranks(int(os.environ["RANK"]), count) if count > 1 else Ranks()


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """The processes at this job, connected: through NCCL with a GPU each, through gloo on CPUs.

    device: "cpu", or "cuda:N", a GPU of this process's own.
    """
    ranks = launched()
    if ranks.count == 1:
        yield Ranks(device=device)
        return
    import torch
    import torch.distributed

    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(device)
    torch.distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield Ranks(ranks.rank, ranks.count, device)
    finally:
        torch.distributed.destroy_process_group()
