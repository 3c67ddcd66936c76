"""XCiT's checkpoints: timm's, the authors' and ours."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from components.models.xcit.model import create_xcit, load_xcit, save_xcit
from components.models.xcit.weights import _as_hub_name

NANO = "xcit_nano_12_p16_224"


def in_authors_layout(tensors):
    """What facebookresearch/xcit would have saved: joined query, key and value in class attention, another name."""
    renamed = {key.replace("pos_embed.", "pos_embeder."): value for key, value in tensors.items()}
    for index in range(2):
        for kind in ("weight", "bias"):
            parts = [renamed.pop(f"cls_attn_blocks.{index}.attn.{letter}.{kind}") for letter in "qkv"]
            renamed[f"cls_attn_blocks.{index}.attn.qkv.{kind}"] = torch.cat(parts)
    return renamed


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    return timm.create_model(NANO, num_classes=7).eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_timms_folder_loads(theirs, images, tmp_path):
    timm.models.save_for_hf(theirs, tmp_path, safe_serialization=True)
    ours = load_xcit(tmp_path).eval()
    torch.testing.assert_close(ours(images).logits, theirs(images), rtol=1e-5, atol=1e-6)


def test_timm_loads_our_folder(images, tmp_path):
    torch.manual_seed(1)
    ours = create_xcit(NANO, num_classes=4, in_chans=2).eval()
    assert save_xcit(ours, tmp_path / "saved") == tmp_path / "saved"
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == ["config.json", "model.safetensors"]
    theirs = timm.create_model(f"local-dir:{tmp_path / 'saved'}", pretrained=True).eval()
    torch.testing.assert_close(theirs(images[:, :2]), ours(images[:, :2]).logits, rtol=1e-5, atol=1e-6)


def test_our_own_shapes_come_back(images, tmp_path):
    ours = create_xcit("xcit_tiny_12_p4_28", num_classes=4, embed_dim=32, depth=2, norm="group", in_chans=1).eval()
    again = load_xcit(save_xcit(ours, tmp_path)).eval()
    assert again.architecture == ours.architecture
    assert torch.equal(again(images[:, :1]).logits, ours(images[:, :1]).logits)


@pytest.mark.parametrize("nested", [True, False])
def test_the_authors_file_loads_by_its_shapes(theirs, images, tmp_path, nested):
    tensors = in_authors_layout(theirs.state_dict())
    file = tmp_path / "xcit_nano_12_p16_224.pth"
    torch.save({"model": tensors, "epoch": 3} if nested else tensors, file)
    for checkpoint in (file, tmp_path):
        ours = load_xcit(checkpoint).eval()
        assert ours.architecture.name == NANO
        torch.testing.assert_close(ours(images).logits, theirs(images), rtol=1e-5, atol=1e-6)


def test_pickled_code_is_refused(tmp_path):
    file = tmp_path / "model.pth"
    torch.save({"model": torch.nn.Linear(2, 2)}, file)
    with pytest.raises(ValueError, match=r"model\.pth: cannot be read"):
        load_xcit(file)


def test_the_head_is_replaced_only_when_another_size_is_asked_for(theirs, tmp_path):
    save_file(theirs.state_dict(), tmp_path / "nano.safetensors")
    kept = load_xcit(tmp_path / "nano.safetensors", num_classes=7)
    assert torch.equal(kept.head.weight, theirs.head.weight)
    assert not kept.has_fresh_head
    fresh = load_xcit(tmp_path / "nano.safetensors", num_classes=3)
    assert fresh.has_fresh_head
    assert fresh.head.weight.shape == (3, 128)
    assert torch.equal(fresh.head.bias, torch.zeros(3))
    assert torch.equal(fresh.norm.weight, theirs.norm.weight)


def test_another_size_is_refused_by_the_tensors_name(theirs, tmp_path):
    save_file(theirs.state_dict(), tmp_path / "nano.safetensors")
    with pytest.raises(
        ValueError,
        match=r"nano\.safetensors: does not fit xcit_tiny_12_p16_224: cls_token is \[1, 1, 128\], not \[1, 1, 192\]",
    ):
        load_xcit(tmp_path / "nano.safetensors", name="xcit_tiny_12_p16_224")


def test_missing_and_unexpected_tensors_are_named(theirs, tmp_path):
    tensors = theirs.state_dict()
    tensors["extra.weight"] = tensors.pop("norm.bias")
    save_file(tensors, tmp_path / "nano.safetensors")
    with pytest.raises(ValueError, match=r"missing norm\.bias; unexpected extra\.weight"):
        load_xcit(tmp_path / "nano.safetensors")


def test_weights_of_something_else_are_refused(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="these are no XCiT's weights"):
        load_xcit(tmp_path / "other.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"torn\.safetensors: cannot be read"):
        load_xcit(tmp_path / "torn.safetensors")
    with pytest.raises(ValueError, match=r"holds other\.safetensors, torn\.safetensors; pass the path of the file"):
        load_xcit(tmp_path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("xcit_small_12_p16_224", "timm/xcit_small_12_p16_224.fb_in1k"),
        ("xcit_small_12_p16_224_dist", "timm/xcit_small_12_p16_224.fb_dist_in1k"),
        ("xcit_small_12_p8_384", "timm/xcit_small_12_p8_384.fb_dist_in1k"),
        ("xcit_small_12_p16_224.fb_dist_in1k", "timm/xcit_small_12_p16_224.fb_dist_in1k"),
        ("timm/xcit_small_12_p16_224.fb_in1k", "timm/xcit_small_12_p16_224.fb_in1k"),
        ("kaggle:owner/weights", "kaggle:owner/weights"),
    ],
)
def test_short_names_mean_timms_repositories(name, expected):
    assert _as_hub_name(name) == expected
