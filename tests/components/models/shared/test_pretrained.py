"""Checkpoint folders: where they are found and which files are accepted."""

import json

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from components.models.shared.pretrained import read_config, read_tensors, resolve_checkpoint

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "b.weight": torch.ones(4)}


def assert_same_tensors(tensors):
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def write_shards(folder, write, suffix):
    for number, name in enumerate(TENSORS, start=1):
        write({name: TENSORS[name]}, folder / f"model-{number}.{suffix}")
    stem = "model.safetensors" if suffix == "safetensors" else "pytorch_model.bin"
    placed = {name: f"model-{number}.{suffix}" for number, name in enumerate(TENSORS, start=1)}
    (folder / f"{stem}.index.json").write_text(json.dumps({"weight_map": placed}))


def test_four_kinds_of_weight_files_hold_the_same(tmp_path):
    folders = [tmp_path / name for name in ("single", "sharded", "bin", "bin_sharded")]
    for folder in folders:
        folder.mkdir()
    save_file(TENSORS, folders[0] / "model.safetensors")
    write_shards(folders[1], save_file, "safetensors")
    torch.save(TENSORS, folders[2] / "pytorch_model.bin")
    write_shards(folders[3], torch.save, "bin")
    named = ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"]
    for folder, name in zip(folders, named, strict=True):
        file, tensors = read_tensors(folder)
        assert file == folder / name
        assert_same_tensors(tensors)


class Harmful:
    def __reduce__(self):
        return (print, ("executed",))


def test_broken_weight_files_name_themselves(tmp_path, capsys):
    with pytest.raises(ValueError, match=r"no model\.safetensors and no pytorch_model\.bin"):
        read_tensors(tmp_path)
    torch.save({"a": Harmful()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin: cannot be read"):
        read_tensors(tmp_path)
    assert "executed" not in capsys.readouterr().out
    torch.save({"a": 3}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin: holds no plain table of tensors"):
        read_tensors(tmp_path)
    save_file(TENSORS, tmp_path / "model.safetensors")
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-8])
    with pytest.raises(ValueError, match=r"model\.safetensors: cannot be read .* damaged"):
        read_tensors(tmp_path)


def test_shards_must_agree_with_their_index(tmp_path):
    write_shards(tmp_path, save_file, "safetensors")
    index = tmp_path / "model.safetensors.index.json"
    good = index.read_text()
    index.write_text(good.replace("b.weight", "c.weight"))
    with pytest.raises(ValueError, match=r"index and its shards name different tensors \(b\.weight, c\.weight\)"):
        read_tensors(tmp_path)
    index.write_text("{}")
    with pytest.raises(ValueError, match=r"index\.json: no index of shards"):
        read_tensors(tmp_path)
    index.write_text(good)
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(ValueError, match=r"shard model-2\.safetensors is missing"):
        read_tensors(tmp_path)


def test_configurations_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match=r"no config\.json"):
        read_config(tmp_path)
    for text, message in (("{", "not readable as JSON"), ("[1]", "holds a list, not an object")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=rf"config\.json: {message}"):
            read_config(tmp_path)


def test_a_folder_is_itself(tmp_path):
    assert resolve_checkpoint(tmp_path) == tmp_path
    assert resolve_checkpoint(str(tmp_path)) == tmp_path
    file = tmp_path / "model.safetensors"
    file.touch()
    with pytest.raises(ValueError, match="a file, not a checkpoint folder; pass its folder"):
        resolve_checkpoint(file)
    with pytest.raises(ValueError, match="no such folder, and no hub name"):
        resolve_checkpoint(tmp_path / "absent" / "weights")


@pytest.mark.parametrize(
    ("name", "mount"),
    [
        ("kaggle:ceshine/mt5-weights", "datasets/ceshine/mt5-weights"),
        ("kaggle:ceshine/mt5-weights", "mt5-weights"),
        ("kaggle:google/mt5/PyTorch/base/2", "models/google/mt5/pytorch/base/2"),
        ("kaggle:google/mt5/pyTorch/base/2", "mt5/pytorch/base/2"),
        ("kaggle:google/mt5/pyTorch/base/2", "mt5/pyTorch/base/2"),
    ],
)
def test_kaggle_inputs_are_found_under_both_layouts(name, mount, tmp_path):
    (tmp_path / mount).mkdir(parents=True)
    assert resolve_checkpoint(name, kaggle_input_root=tmp_path) == tmp_path / mount
    inner = tmp_path / mount / "mt5-base"
    inner.mkdir()
    (inner / "config.json").touch()
    assert resolve_checkpoint(name, kaggle_input_root=tmp_path) == inner


def test_an_input_that_is_not_attached_says_where_it_was_sought(tmp_path):
    with pytest.raises(ValueError, match=rf"not attached \(looked for {tmp_path}/datasets/a/b, {tmp_path}/b\)"):
        resolve_checkpoint("kaggle:a/b", kaggle_input_root=tmp_path)
    with pytest.raises(ValueError, match="model_sources"):
        resolve_checkpoint("kaggle:a/b/pytorch/base/1", kaggle_input_root=tmp_path)
    with pytest.raises(ValueError, match="a Kaggle input is kaggle:owner/dataset or"):
        resolve_checkpoint("kaggle:a/b/c", kaggle_input_root=tmp_path)


def test_without_a_network_one_message_says_what_would_work(monkeypatch):
    # What HF_HUB_OFFLINE=1 sets when the client is imported
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    advice = (
        "not in the local hub cache, .*`hf download nobody/no-such-t5 --local-dir no-such-t5` where there is a network"
    )
    with pytest.raises(ValueError, match=f"nobody/no-such-t5: no folder of that name, {advice}"):
        resolve_checkpoint("nobody/no-such-t5")
    with pytest.raises(ValueError, match="nobody/no-such-t5: no folder of that name"):
        resolve_checkpoint("nobody/no-such-t5", local_files_only=True)
