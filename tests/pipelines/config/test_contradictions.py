"""Fields that do not go together: refused before a run begins, with the key, its value and what would work."""

import pytest
from small_experiment import BASE

from pipelines.config.load import load_experiment
from pipelines.errors import ConfigError
from pipelines.workspace import Workspace


def refusal(root, name, *overrides):
    (root / "experiments").mkdir()
    (root / "experiments" / f"{name}.yaml").write_text(BASE, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_experiment(Workspace(root), name, overrides, folds_of=lambda _: {"name": "holdout"})
    return str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimizer.layer_decay=1.2"], "optimizer.layer_decay: 1.2 is out of range; needs at most 1, 0.8 is usual"),
        (
            ["optimizer.relative_step=true", "optimizer.lr=null", "optimizer.layer_decay=0.8"],
            "optimizer.relative_step: true with layer_decay: 0.8 and head_lr: null",
        ),
        (["training.activation_checkpointing=recomput"], "training.activation_checkpointing: activation plan 'reco"),
        (
            ["training.activation_checkpointing=recompute*7"],
            "training.activation_checkpointing: activation plan recompute*7: names 7 layers, but the stack has 2",
        ),
        (
            ["training.activation_checkpointing=embeddings+rebuild"],
            "training.activation_checkpointing: activation plan embeddings+rebuild: t5_from_scratch has no such "
            "embeddings; needs rebuild",
        ),
        (
            ["training.memory_budget=2GiB", "training.activation_checkpointing=recompute"],
            "training.memory_budget: '2GiB' with activation_checkpointing: 'recompute'; one chooses the other",
        ),
        (["training.memory_budget=12"], "training.memory_budget: '12' is no amount of memory; needs a number above 0"),
        (
            ["optimizer.head_lr=0.1"],
            "optimizer.head_lr: 0.1 with model.tie_embeddings: true, whose head is the embedding; needs null, or",
        ),
        (["training.eval_precision=fp8"], "training.eval_precision: 'fp8'"),
        (["data.vocabulary=file"], "data.vocabulary: file without vocabulary_file; needs its path there"),
        (["data.vocabulary_file=x"], "data.vocabulary_file: 'x' with vocabulary: unigram; needs null, or"),
        (["data.trim_vocabulary=true"], "data.trim_vocabulary: true with vocabulary: unigram, which holds nothing"),
        (["data.trim_for=letters"], "data.trim_for: letters without trim_vocabulary: true; needs null"),
        (
            ["model.head=classifier", "model.target_pieces_only=true"],
            "model.target_pieces_only: true with head classifier, which generates nothing; needs false",
        ),
        (
            [
                "model.name=t5_pretrained",
                "model.checkpoint=run:base",
                "data.vocabulary=checkpoint",
                "data.trim_vocabulary=true",
            ],
            "data.trim_vocabulary: true with model.checkpoint: run:base, whose vocabulary is that run's; needs false",
        ),
    ],
)
def test_what_does_not_go_together_says_what_does(tmp_path, overrides, message):
    assert refusal(tmp_path, "base", *overrides).startswith("override: " + message)


@pytest.mark.parametrize("name", ["label_smoothing", "z_loss"])
def test_a_classifier_has_no_terms_over_a_vocabulary(tmp_path, name):
    message = refusal(tmp_path, "base", "model.head=classifier", f"training.{name}=0.1")
    assert message == f"override: training.{name}: 0.1 with model.head classifier, which has none; needs 0"
