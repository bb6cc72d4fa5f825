"""Checkpoints: a network goes on from one as if nothing had happened, however it lies in memory."""

import copy
from pathlib import Path

import pytest
import torch
from CTStyleGenCore.checkpoint import flat_state, load_flat_state, read_checkpoint, write_checkpoint
from torch import nn


def made(layout: torch.memory_format) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)).to(memory_format=layout)
    return network, torch.optim.Adam(network.parameters(), 1e-2, fused=True)


def step(network: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    optimizer.zero_grad()
    network(torch.randn(1, 3, 9, 9, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_goes_on_bit_for_bit_in_any_layout(tmp_path: Path, layout: torch.memory_format) -> None:
    """Channels last is that of all networks on a GPU, whose fused kernels refuse moments of another layout."""
    network, optimizer = made(layout)
    for seed in range(2):
        step(network, optimizer, seed)
    write_checkpoint(tmp_path / "m.checkpoint", flat_state({"G": network, "optimizer": optimizer}), {})
    again, again_optimizer = made(layout)
    state, _ = read_checkpoint(tmp_path / "m.checkpoint")
    load_flat_state({"G": again, "optimizer": again_optimizer}, state)
    for parameter, kept in again_optimizer.state.items():
        assert kept["exp_avg"].stride() == kept["exp_avg_sq"].stride() == parameter.stride()
    step(network, optimizer, 2)
    step(again, again_optimizer, 2)
    for one, other in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_nothing_of_the_file_stays_in_use(tmp_path: Path) -> None:
    """Windows replaces no file that is mapped into memory, and the next checkpoint replaces this one."""
    network, optimizer = made(torch.contiguous_format)
    step(network, optimizer, 0)
    path = tmp_path / "m.checkpoint"
    write_checkpoint(path, flat_state({"G": network, "optimizer": optimizer}), {})
    state, _ = read_checkpoint(path)
    load_flat_state({"G": network, "optimizer": optimizer}, state)
    before = copy.deepcopy(optimizer.state_dict()["state"])
    for t in state.values():
        t.zero_()
    for index, kept in optimizer.state_dict()["state"].items():
        assert all(torch.equal(kept[key], before[index][key]) for key in kept)
    assert any(p.any() for p in network.parameters())
