"""Adafactor's steps for parameters that FSDP2 has cut along their first dimension: one all-reduce a group of ranks.

A rank holds whole rows, so row averages, and w_j = sum_i g_ij^2 / R_i, need nobody else; column sums, the mean row
average and the norms are sums over ranks. Those of all tensors travel in one vector, after which every rank knows the
same clip factors. The state is sharded like the parameter (column averages are replicated), as distributed
checkpoints expect.
"""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.tensor import DTensor, Replicate, Shard

from components.optim.adafactor.update import Rate, Update, rounding_generator, second_moment_shapes, state_dtype, store


def init_sharded_state(
    state: dict[str, Any], param: DTensor, shape: tuple[int, ...] | None, has_momentum: bool
) -> None:
    """Fill `state` with zeros that are sharded like `param`.

    Raises:
        ValueError: If `param` is sharded along another dimension than its first.
    """
    _sharding_dim(param)
    dtype = state_dtype(param)
    state["step"] = 0
    if has_momentum:
        state["exp_avg"] = torch.zeros_like(param, dtype=dtype)
    if shape is None:
        state["exp_avg_sq"] = torch.zeros_like(param, dtype=dtype)
        return
    num_rows = param.to_local().shape[0]
    for name, size in second_moment_shapes(param, shape).items():
        # The columns' averages have no row dimension to be cut along, unless other dimensions come before the rows.
        is_whole = name == "exp_avg_sq_col" and len(shape) == 2
        local = torch.zeros(size if is_whole else (num_rows, *size[1:]), dtype=dtype, device=param.device)
        placements: list[Any] = [Replicate()] * param.device_mesh.ndim if is_whole else list(param.placements)
        state[name] = _wrap(local, param, placements, size)


def apply_sharded(updates: list[Update]) -> list[Rate]:
    """Carry out `updates`, whose parameters are DTensors, and return their rates alpha_t.

    Every rank must call it with the same list, as it does where every rank has gradients for the same parameters.
    """
    rates: list[Rate] = [0.0] * len(updates)
    groups: dict[Any, list[int]] = defaultdict(list)
    for index, update in enumerate(updates):
        assert isinstance(update.param, DTensor)
        groups[update.param.device_mesh, _sharding_dim(update.param)].append(index)
    for (mesh, dim), indices in groups.items():
        pieces = [_Piece(updates[index]) for index in indices]
        sums = [piece.read() for piece in pieces]
        total = torch.cat(sums)
        if dim is not None:
            dist.all_reduce(total, group=mesh.get_group(dim))
        for piece, index, part in zip(
            pieces, indices, torch.split_with_sizes(total, [len(one) for one in sums]), strict=True
        ):
            rates[index] = piece.write(part)
    return rates


class _Piece:
    """This rank's part of one parameter."""

    def __init__(self, update: Update) -> None:
        assert isinstance(update.param, DTensor)
        self._update, dtype = update, update.dtype
        self._param = update.param.to_local()
        self._value = self._param.to(dtype)
        grad = update.grad
        if isinstance(grad, DTensor):
            grad = grad.redistribute(update.param.device_mesh, update.param.placements).to_local()
        self._grad = grad.to(dtype)
        self._state = {k: v.to_local() if isinstance(v, DTensor) else v for k, v in update.state.items()}
        # Rows are cut, so that averages over them need the other ranks; more dimensions leave whole matrices here.
        self._cuts_rows = update.shape is not None and len(update.shape) == 2
        if self._cuts_rows:
            self._grad = self._grad.flatten(1)  # (n, M)

    def read(self) -> Tensor:
        """Advance what needs this rank alone and return, in float64, what is to be summed over ranks."""
        norm = torch.linalg.vector_norm(self._value, dtype=torch.float64).square().view(1)
        if not self._cuts_rows:
            self._change = self._local_change()
            squares = torch.linalg.vector_norm(self._change, dtype=torch.float64).square().view(1)
            return torch.cat([norm, squares])
        update, rows = self._update, self._state["exp_avg_sq_row"]
        buffer = self._grad.square()  # (n, M)
        rows.lerp_(buffer.mean(dim=1).add_(update.eps[0]), update.weight)
        sums = buffer.sum(dim=0, dtype=torch.float64)
        weighted = buffer.div_(rows.unsqueeze(1)).sum(dim=0, dtype=torch.float64)
        return torch.cat([norm, rows.sum(dtype=torch.float64).view(1), sums, weighted])

    def write(self, sums: Tensor) -> Tensor | float:
        """Carry out the step with the sums over all ranks and return the rate."""
        update, count = self._update, self._update.param.numel()
        rate: Rate = update.rho
        if update.is_scaled:
            rate = (sums[0] / count).sqrt().clamp(min=update.eps[1]).mul(update.rho)
        if self._cuts_rows:
            change, squares = self._cut_change(sums[1], *sums[2:].chunk(2))
        else:
            change, squares = self._change, sums[1]
        change = change.view(self._param.shape)
        change.mul_(rate / ((squares / count).sqrt() / update.clip_threshold).clamp(min=1))
        if update.beta1 is not None:
            change = self._state["exp_avg"].mul_(update.beta1).add_(change, alpha=1 - update.beta1)
        if update.weight_decay != 0:
            change = change + self._value * (update.weight_decay * rate)
        self._value.sub_(change)
        if self._value is not self._param:
            store(update, self._value, self._param, rounding_generator(update))
        return rate

    def _cut_change(self, row_sum: Tensor, sums: Tensor, weighted: Tensor) -> tuple[Tensor, Tensor]:
        """Advance the column averages; return the unclipped update of these rows and its sum of squares over ranks."""
        assert self._update.shape is not None
        num_rows, update = self._update.shape[0], self._update
        rows, columns = self._state["exp_avg_sq_row"], self._state["exp_avg_sq_col"]
        columns.lerp_((sums / num_rows).add_(update.eps[0]).to(columns.dtype), update.weight)
        mean = row_sum / num_rows
        row_factor = rows.rsqrt().mul_(mean.sqrt()).unsqueeze(1)
        change = (self._grad * columns.rsqrt()).mul_(row_factor)
        return change, weighted.div(columns).sum().mul(mean)

    def _local_change(self) -> Tensor:
        """Advance a second moment that is whole on this rank and return the unclipped update."""
        update, squares = self._update, self._grad.square().add_(self._update.eps[0])
        if update.shape is None:
            moment: Tensor = self._state["exp_avg_sq"].lerp_(squares, update.weight)
            return moment.rsqrt().mul_(self._grad)
        rows, columns = self._state["exp_avg_sq_row"], self._state["exp_avg_sq_col"]
        rows.lerp_(squares.mean(dim=-1), update.weight)
        columns.lerp_(squares.mean(dim=-2), update.weight)
        row_factor = rows.rsqrt().mul_(rows.mean(dim=-1, keepdim=True).sqrt_())
        return (self._grad * columns.rsqrt().unsqueeze(-2)).mul_(row_factor.unsqueeze(-1))


def _sharding_dim(param: DTensor) -> int | None:
    """Return the mesh dimension over which `param` is sharded, None where it is replicated only."""
    dims = [dim for dim, placement in enumerate(param.placements) if not placement.is_replicate()]
    # type() and not isinstance: FSDP2 over tensor parallelism has a subclass of Shard, which cuts in strides.
    if len(dims) > 1 or any(
        type(param.placements[dim]) is not Shard or not param.placements[dim].is_shard(0) for dim in dims
    ):
        raise ValueError(
            f"Adafactor got a parameter of shape {tuple(param.shape)} placed as {param.placements}; it can step "
            "parameters replicated or cut once along dimension 0, as torch's fully_shard does by default"
        )
    return dims[0] if dims else None


def _wrap(local: Tensor, param: DTensor, placements: list[Any], shape: tuple[int, ...]) -> DTensor:
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(
        local, param.device_mesh, placements, run_check=False, shape=torch.Size(shape), stride=stride
    )
