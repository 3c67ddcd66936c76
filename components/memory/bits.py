"""Dropout masks as bits: what autograd keeps in one to four bytes an element, in an eighth of a byte."""

import torch
from torch import Tensor
from torch.nn import functional

SMALLEST = 2048  # elements; below, the work costs more than the memory is worth


class Bits:
    """A tensor of two values, one of them zero, one bit an element; `value` None stands for a bool tensor."""

    def __init__(self, is_set: Tensor, value: Tensor | None) -> None:
        self.shape, self.value = is_set.shape, value
        self.bits = _gathered(_lanes(is_set))

    def unpack(self) -> Tensor:
        count = self.shape.numel()
        lanes = self._table().index_select(0, self.bits.int())  # (N / 8,) int64, or (N / 8, 8) values
        if self.value is None:
            return lanes.view(torch.uint8)[:count].view(self.shape).bool()
        return lanes.view(-1)[:count].view(self.shape)

    def _table(self) -> Tensor:
        """For each byte of bits the eight elements that it stands for."""
        bytes_of = _byte_table(self.bits.device)
        if self.value is None:
            return bytes_of
        return bytes_of.view(torch.uint8).view(256, 8).to(self.value.dtype).mul_(self.value)


def _lanes(is_set: Tensor) -> Tensor:
    """Bools, of one byte each, eight to an int64."""
    flat = is_set.reshape(-1).view(torch.uint8)
    padded = functional.pad(flat, (0, -len(flat) % 8)) if len(flat) % 8 else flat
    return padded.view(torch.int64)


def _gathered(lanes: Tensor) -> Tensor:
    """Eight bytes of 0 or 1 as one byte: the product moves byte i's bit to bit 56 + i."""
    return (lanes * 0x0102040810204080 >> 56).to(torch.uint8)


_TABLES: dict[torch.device, Tensor] = {}


def _byte_table(device: torch.device) -> Tensor:
    """For each byte that `_gathered` yields, the eight bytes it came from."""
    if device not in _TABLES:
        flags = (torch.arange(256)[:, None] >> torch.arange(8)) & 1  # (256, 8)
        lanes = flags.to(torch.uint8).view(torch.int64).squeeze(1)  # (256,)
        order = _gathered(lanes).long()
        _TABLES[device] = torch.empty_like(lanes).index_copy_(0, order, lanes).to(device)
    return _TABLES[device]


def build_bits(tensor: Tensor) -> Bits | None:
    """`tensor` as bits: a bool tensor, or one on the CPU of zeros and one other value, as dropout draws there."""
    if tensor.numel() < SMALLEST or not tensor.is_contiguous():
        return None
    if tensor.dtype == torch.bool:
        return Bits(tensor, None)
    if tensor.device.type != "cpu" or not tensor.is_floating_point():
        return None
    # A few elements tell a mask from other tensors; then all are held against it
    head = tensor.view(-1)[:64]
    if len(kinds := set(head.tolist()) - {0.0}) != 1 or not kinds.pop() > 0:
        return None
    value, is_set = head.max(), tensor.to(torch.bool)
    # By way of a float, as a comparison into bool takes six times as long
    is_value = torch.eq(tensor, value, out=torch.empty_like(tensor)).to(torch.bool)
    return Bits(is_set, value) if torch.equal(_lanes(is_set), _lanes(is_value)) else None


def draw_mask(x: Tensor, p: float) -> tuple[Tensor, Bits]:
    """The factors of 0 and 1 / (1 - p) that torch's dropout draws on a CPU, to the bit and the random number."""
    mask = torch.empty_like(x.detach()).bernoulli_(1 - p)
    is_set = mask.to(torch.bool)  # several times faster than a comparison
    value = torch.ones((), dtype=x.dtype).div_(1 - p)
    return mask.div_(1 - p), Bits(is_set, value)


def drop_again(x: Tensor, bits: Bits, scale: float) -> Tensor:
    """Dropout once more; where the mask is one of bools, what is left is scaled."""
    mask = bits.unpack()
    return x * mask if bits.value is not None else torch.ops.aten.native_dropout_backward(x, mask, scale)
