"""A saved tensor that waits in the host's memory comes back as it was: values, type and strides.

On a GPU the strides decide which attention kernel a recomputed layer takes, and with it what that layer saves.
"""

import pytest
import torch

from components.memory.treatments import _Offloaded

BLOCK = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
LAYOUTS = {  # with the elements that the copy holds
    "contiguous": (BLOCK, 144),
    "permuted": (BLOCK.permute(2, 0, 3, 1), 144),
    "channels last": (BLOCK.contiguous(memory_format=torch.channels_last), 144),
    "expanded": (BLOCK[:1, :, :, :1].permute(3, 1, 2, 0).expand(5, 3, 4, 7), 12),
    "expanded number": (torch.tensor(3.0).expand(4, 5), 1),
    "sliced": (BLOCK[:, 1:, :, ::2], 48),
    "sliced and permuted": (BLOCK.permute(0, 3, 1, 2)[:, 2:5], 72),
    "sliced and expanded": (BLOCK[..., ::2].unsqueeze(1).expand(2, 7, 3, 4, 3), 72),
    "windows that overlap": (torch.arange(20.0).unfold(0, 5, 2), 19),
    "windows that overlap with gaps": (torch.arange(99.0).as_strided((3, 3, 4), (30, 4, 3)), 78),
    "moved start": (BLOCK.view(-1)[7:31].view(4, 6).t(), 24),
    "no dimension": (torch.tensor(2.0), 1),
    "no element": (BLOCK[:, :0].permute(3, 1, 0, 2), 0),
    "no element, expanded": (BLOCK[:0, :1].expand(0, 5, 4, 6), 0),
    "half precision": (BLOCK.bfloat16().mT, 144),
    "mask": (BLOCK.permute(1, 0, 3, 2) > 5, 144),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_and_strides_come_back_and_nothing_is_copied_twice(layout):
    tensor, num_copied = LAYOUTS[layout]
    packed = _Offloaded(tensor)
    assert packed.host.untyped_storage().nbytes() == num_copied * tensor.element_size()
    fetched = packed.fetch()
    assert (fetched.dtype, fetched.shape, fetched.stride()) == (tensor.dtype, tensor.shape, tensor.stride())
    assert torch.equal(fetched, tensor)


def test_the_copy_is_no_view():
    tensor = torch.ones(2, 3).t()
    packed = _Offloaded(tensor)
    assert packed.host.stride() == (1, 3)
    tensor.zero_()
    assert torch.equal(packed.fetch(), torch.ones(3, 2))
