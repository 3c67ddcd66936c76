"""XCiT's convolutions as single steps of autograd: local patch interaction, and the stem.

A contiguous (B, N, C) tensor of tokens is an image (B, C, H, W) whose channels lie last, which convolutions take as it
is. Kept are the input and what each convolution gave; norms and GELU are repeated from the kept statistics.
"""

from collections.abc import Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from components.models.xcit.fast.common import (
    Gradient,
    Normed,
    activate,
    add_branch,
    branch_gradient,
    compute_dtype,
    first_derivative,
    fold_scale,
    residual,
    unfold_scale,
    without_autocast,
)

ALL = [True, True, True]


class ChannelNorm:
    """BatchNorm or GroupNorm of images, for steps that repeat it from the statistics in place of keeping its result.

    In training BatchNorm's running statistics move once, in `apply`, as its own forward would move them. GroupNorm gets
    all its arguments in the type of the images, since CUDA's kernels take no others.
    """

    def __init__(self, module: nn.BatchNorm2d | nn.GroupNorm) -> None:
        self.eps, self.momentum = module.eps, 0.0
        self.running: tuple[Tensor | None, Tensor | None] = (None, None)
        self.groups = module.num_groups if isinstance(module, nn.GroupNorm) else 0
        self.uses_batch = False
        if isinstance(module, nn.BatchNorm2d):
            self._read_batch_norm(module)

    def _read_batch_norm(self, module: nn.BatchNorm2d) -> None:
        self.uses_batch = module.training or module.running_mean is None
        if module.training and module.track_running_stats and module.num_batches_tracked is not None:
            module.num_batches_tracked.add_(1)
            # Without a momentum the running statistics are plain means over all batches
            self.momentum = (
                1.0 / float(module.num_batches_tracked) if module.momentum is None else float(module.momentum)
            )
        if not module.training or module.track_running_stats:
            self.running = (module.running_mean, module.running_var)

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The normed x and two tensors of statistics, from which `repeat` and `backward` work."""
        if self.groups:
            return self._group_norm(x, weight, bias)
        out, mean, rstd = torch.native_batch_norm(
            x, weight, bias, *self.running, self.uses_batch, self.momentum, self.eps
        )
        if not self.uses_batch:
            assert self.running[0] is not None
            assert self.running[1] is not None
            # Copies: a later step in training mode may move the originals before the backward pass
            mean, rstd = self.running[0].clone(), (self.running[1] + self.eps).rsqrt_()
        return out, mean, rstd

    def repeat(self, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
        """The normed x again."""
        if self.groups:
            return self._group_norm(x, weight, bias)[0]
        scale = weight.to(mean.dtype) * rstd
        shift = bias.to(mean.dtype) - mean * scale
        rows = x.permute(0, 2, 3, 1)  # (B, H, W, C)
        return torch.addcmul(shift.to(x.dtype), rows, scale.to(x.dtype)).permute(0, 3, 1, 2)

    def backward(
        self, grad: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of x, weight and bias."""
        aten = torch.ops.aten
        if self.groups:
            return self._group_norm_backward(grad, x, weight, mean, rstd)
        if self.uses_batch:
            return aten.native_batch_norm_backward(grad, x, weight, None, None, mean, rstd, True, self.eps, ALL)  # type: ignore[no-any-return]
        variance = rstd.reciprocal().square_().sub_(self.eps)
        # CUDA wants the saved statistics in evaluation mode too
        return aten.native_batch_norm_backward(grad, x, weight, mean, variance, mean, rstd, False, self.eps, ALL)  # type: ignore[no-any-return]

    def _group_norm(self, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = _laid_out_for_group_norm(x)
        weight, bias = weight.to(x.dtype), bias.to(x.dtype)
        return torch.native_group_norm(x, weight, bias, *self._group_sizes(x), self.groups, self.eps)

    def _group_norm_backward(
        self, grad: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        grad, x = _laid_out_for_group_norm(grad), _laid_out_for_group_norm(x)
        grad_x, grad_weight, grad_bias = torch.ops.aten.native_group_norm_backward(
            *(grad, x, mean, rstd, weight.to(x.dtype), *self._group_sizes(x), self.groups, ALL)
        )
        return grad_x, grad_weight.to(weight.dtype), grad_bias.to(weight.dtype)

    @staticmethod
    def _group_sizes(x: Tensor) -> tuple[int, int, int]:
        return x.shape[0], x.shape[1], x.shape[2] * x.shape[3]


def _laid_out_for_group_norm(image: Tensor) -> Tensor:
    """Channels last stay so on a CPU alone: other devices' kernels, in torch before 2.14, demand (B, C, H, W)."""
    return image if image.device.type == "cpu" else image.contiguous()


def is_supported(norm: nn.Module) -> TypeGuard[nn.BatchNorm2d | nn.GroupNorm]:
    """Whether steps here know this norm; one that was put in its place (synchronised, folded) goes the plain way."""
    return type(norm) in (nn.BatchNorm2d, nn.GroupNorm)


def convolve_backward(
    grad: Tensor, x: Tensor, weight: Tensor, *, stride: int, groups: int, needs_x: bool, has_bias: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a 3x3 convolution's input, weight and bias."""
    sizes = [weight.shape[0]] if has_bias else None
    return torch.ops.aten.convolution_backward(  # type: ignore[no-any-return]
        *(grad, x, weight, sizes, [stride] * 2, [1, 1], [1, 1], False, [0, 0], groups, [needs_x, True, has_bias])
    )


def as_image(tokens: Tensor, height: int, width: int) -> Tensor:
    """(B, N, C) -> (B, C, H, W), the same memory with channels last."""
    return torch.unflatten(tokens, 1, (height, width)).permute(0, 3, 1, 2)


def as_tokens(image: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, N, C), a view if channels lie last."""
    return image.permute(0, 2, 3, 1).flatten(1, 2)


class _AddLocal(Function):
    """Keeps x and the first convolution's result: two token maps."""

    @staticmethod
    @without_autocast
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        weight1: Tensor,
        bias1: Tensor,
        channel_weight: Tensor,
        channel_bias: Tensor,
        weight2: Tensor,
        bias2: Tensor,
        gamma: Tensor | None,
        kept: Tensor | None,
        channel_norm: ChannelNorm,
        eps: float,
        dtype: torch.dtype,
        grid: tuple[int, int],
    ) -> Tensor:
        dim = x.shape[2]
        normed = as_image(Normed(x, norm_weight, norm_bias, eps, dtype).out, *grid)  # (B, C, H, W)
        local = functional.conv2d(normed, weight1.to(dtype), bias1.to(dtype), padding=1, groups=dim)
        mixed, mean, rstd = channel_norm.apply(activate(ctx, local), channel_weight, channel_bias)
        folded_weight, folded_bias = fold_scale(gamma, weight2, bias2, dtype)
        branch = functional.conv2d(mixed, folded_weight, folded_bias, padding=1, groups=dim)
        ctx.save_for_backward(
            *(x, local, mean, rstd, norm_weight, norm_bias, weight1, channel_weight, channel_bias),
            *(weight2, bias2, gamma, kept),
        )
        ctx.channel_norm, ctx.eps, ctx.grid = channel_norm, eps, grid
        return add_branch(x, as_tokens(branch), kept).contiguous()

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad: Tensor) -> tuple[Gradient, ...]:  # noqa: ANN401
        x, local, mean, rstd, norm_weight, norm_bias, weight1, *rest = ctx.saved_tensors
        channel_weight, channel_bias, weight2, bias2, gamma, kept = rest
        dtype, dim, channel_norm = local.dtype, x.shape[2], ctx.channel_norm
        how = {"stride": 1, "groups": dim, "needs_x": True, "has_bias": True}
        grad_branch = as_image(branch_gradient(grad, kept, dtype), *ctx.grid)
        active = functional.gelu(local)
        mixed = channel_norm.repeat(active, channel_weight, channel_bias, mean, rstd)
        folded_weight = fold_scale(gamma, weight2, bias2, dtype)[0]
        grad_mixed, *grads2 = convolve_backward(grad_branch, mixed, folded_weight, **how)
        grad_gamma, grad_weight2, grad_bias2 = unfold_scale(gamma, weight2, bias2, *grads2)
        grad_active, *grads_channel = channel_norm.backward(grad_mixed, active, channel_weight, mean, rstd)
        grad_local = torch.ops.aten.gelu_backward(grad_active, local)
        normed = Normed(x, norm_weight, norm_bias, ctx.eps, dtype)
        image = as_image(normed.out, *ctx.grid)
        grad_image, grad_weight1, grad_bias1 = convolve_backward(grad_local, image, weight1.to(dtype), **how)
        grad_x, grad_norm_weight, grad_norm_bias = normed.backward(as_tokens(grad_image))
        return (
            *(grad_x.add_(grad), grad_norm_weight, grad_norm_bias),
            *(grad_weight1.to(weight1.dtype), grad_bias1.to(weight1.dtype), *grads_channel),
            *(grad_weight2, grad_bias2, grad_gamma),
            *(None, None, None, None, None),
        )


def add_local_interaction(
    x: Tensor,
    norm: nn.LayerNorm,
    conv1: nn.Conv2d,
    channel_norm: nn.Module,
    conv2: nn.Conv2d,
    gamma: Tensor | None,
    kept: Tensor | None,
    grid: tuple[int, int],
) -> Tensor:
    """x + kept * gamma * conv2(channel_norm(gelu(conv1(norm(x))))) for x (B, N, C) on a grid of H x W tokens."""
    x = residual(x, norm)
    if not is_supported(channel_norm):
        image = as_image(norm(x), *grid)  # (B, C, H, W)
        branch = as_tokens(conv2(channel_norm(functional.gelu(conv1(image)))))
        return add_branch(x, branch if gamma is None else gamma * branch, kept)
    added: Tensor = _AddLocal.apply(
        *(x, norm.weight, norm.bias, conv1.weight, conv1.bias, channel_norm.weight, channel_norm.bias),
        *(conv2.weight, conv2.bias, gamma, kept, ChannelNorm(channel_norm), norm.eps, compute_dtype(x), grid),
    )
    return added


class _EmbedPixels(Function):
    """Keeps the pixels and each convolution's result."""

    @staticmethod
    @without_autocast
    def forward(
        ctx: Any,  # noqa: ANN401
        pixel_values: Tensor,
        norms: Sequence[ChannelNorm],
        dtype: torch.dtype,
        *parameters: Tensor,
    ) -> Tensor:
        active = pixel_values.to(dtype, memory_format=torch.channels_last)
        kept: list[Tensor] = []
        for stage, norm in enumerate(norms):
            weight, channel_weight, channel_bias = parameters[3 * stage : 3 * stage + 3]
            local = functional.conv2d(active, weight.to(dtype), stride=2, padding=1)
            # One grey channel is no layout, so the first convolution may not keep it
            local = local.contiguous(memory_format=torch.channels_last)
            out, mean, rstd = norm.apply(local, channel_weight, channel_bias)
            kept += [local, mean, rstd]
            if stage + 1 < len(norms):
                active = activate(ctx, out)
        ctx.norms = norms
        ctx.save_for_backward(pixel_values, *kept, *parameters)
        return out

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad: Tensor) -> tuple[Gradient, ...]:  # noqa: ANN401
        pixel_values, *saved = ctx.saved_tensors
        depth = len(ctx.norms)
        statistics, parameters = saved[: 3 * depth], saved[3 * depth :]
        grads: list[Gradient] = []
        below: Tensor | None = None  # the normed result of the stage below, before GELU
        for stage in reversed(range(depth)):
            local, mean, rstd = statistics[3 * stage : 3 * stage + 3]
            weight, channel_weight, _ = parameters[3 * stage : 3 * stage + 3]
            dtype = local.dtype
            grad = grad.to(dtype).contiguous(memory_format=torch.channels_last)
            grad_local, grad_scale, grad_shift = ctx.norms[stage].backward(grad, local, channel_weight, mean, rstd)
            if stage > 0:
                lower, lower_mean, lower_rstd = statistics[3 * stage - 3 : 3 * stage]
                _, lower_weight, lower_bias = parameters[3 * stage - 3 : 3 * stage]
                below = ctx.norms[stage - 1].repeat(lower, lower_weight, lower_bias, lower_mean, lower_rstd)
                source = functional.gelu(below)
            else:
                source = pixel_values.to(dtype, memory_format=torch.channels_last)
            grad, grad_weight, _ = convolve_backward(
                *(grad_local, source, weight.to(dtype)),
                stride=2,
                groups=1,
                needs_x=stage > 0 or ctx.needs_input_grad[0],
                has_bias=False,
            )
            grads = [grad_weight.to(weight.dtype), grad_scale, grad_shift, *grads]
            if stage > 0:
                grad = torch.ops.aten.gelu_backward(grad, below)
        grad_pixels = grad.to(pixel_values.dtype) if ctx.needs_input_grad[0] else None
        return grad_pixels, None, None, *grads


def embed_pixels(pixel_values: Tensor, stages: Sequence[nn.Sequential]) -> Tensor:
    """The stem: (B, in_chans, height, width) -> (B, C, H, W), channels last; GELU between stages, none at the end."""
    norms = [stage[1] for stage in stages if is_supported(stage[1])]
    if len(norms) < len(stages):
        image = pixel_values.contiguous(memory_format=torch.channels_last)
        for index, stage in enumerate(stages):
            image = stage(image if index == 0 else functional.gelu(image))
        return image
    parameters = [tensor for stage in stages for tensor in (stage[0].weight, stage[1].weight, stage[1].bias)]
    dtype = compute_dtype(pixel_values)
    embedded: Tensor = _EmbedPixels.apply(pixel_values, [ChannelNorm(norm) for norm in norms], dtype, *parameters)
    return embedded.to(norms[-1].weight.dtype)
