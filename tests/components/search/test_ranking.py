"""BM25, vectors, fusion and the measures of a ranking, each against a reference written out here."""

import math

import numpy as np
import pytest

from components.search.evaluation import cut_title, known_item_metrics, ndcg, rank_of
from components.search.fusion import fuse_ranks, fuse_scores, middle_ranks, tune_weight
from components.search.lexical import Bm25, build_postings, load_postings, merge_postings
from components.search.vectors import ExactVectors, FaissVectors, open_similarities, open_vectors, write_faiss

DOCUMENTS = [["a", "b", "a"], ["b", "c"], ["c"], ["a", "c", "c", "d", "e"]]


def reference_bm25(query, documents, k1=1.2, b=0.75):
    mean = sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        total = 0.0
        for term in set(query):
            n = sum(term in other for other in documents)
            tf = document.count(term)
            if tf:
                idf = math.log(1 + (len(documents) - n + 0.5) / (n + 0.5))
                total += idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * len(document) / mean))
        scores.append(total)
    return scores


@pytest.mark.parametrize("query", [["a"], ["a", "c", "a"], ["d", "zzz"], ["zzz"], []])
def test_bm25_is_the_formula(query):
    scores = Bm25(build_postings(DOCUMENTS)).scores(query)
    np.testing.assert_allclose(scores, reference_bm25(query, DOCUMENTS), rtol=1e-6)


def test_merged_postings_equal_those_built_at_once_and_survive_the_disk(tmp_path):
    whole = build_postings(DOCUMENTS)
    merged = merge_postings(build_postings(DOCUMENTS[:1]), build_postings(DOCUMENTS[1:]))
    whole.save(tmp_path)
    for postings in (merged, load_postings(tmp_path)):
        for name in ("terms", "offsets", "articles", "counts", "lengths"):
            left, right = getattr(whole, name), getattr(postings, name)
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)
    np.save(tmp_path / "offsets.npy", whole.offsets[:-1])
    with pytest.raises(ValueError, match="do not fit together"):
        load_postings(tmp_path)


def test_half_precision_vectors_give_their_own_product_block_by_block(tmp_path):
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((20_000, 8)).astype(np.float16)
    query = draw.standard_normal(8).astype(np.float32)
    np.save(tmp_path / "v.npy", vectors)
    expected = vectors.astype(np.float32) @ query
    np.testing.assert_allclose(ExactVectors(open_vectors(tmp_path / "v.npy")).scores(query), expected, atol=1e-5)
    np.save(tmp_path / "v.npy", vectors.astype(np.int32))
    with pytest.raises(ValueError, match=r"v\.npy: holds int32"):
        open_vectors(tmp_path / "v.npy")


def test_faiss_finds_what_the_exact_product_finds(tmp_path):
    pytest.importorskip("faiss")
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((2000, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    write_faiss(vectors, tmp_path, probes=10**6)
    similarities = open_similarities(tmp_path, vectors)
    assert isinstance(similarities, FaissVectors)
    exact = ExactVectors(vectors).scores(vectors[7])
    np.testing.assert_allclose(similarities.scores(vectors[7]), exact, atol=1e-5)
    few = FaissVectors(similarities._index, 2000, candidates=50).scores(vectors[7])
    order = np.argsort(-exact, kind="stable")
    assert set(np.argsort(-few, kind="stable")[:50]) == set(order[:50])
    assert few[order[50:]].max() <= few[order[:50]].min() + 1e-6
    with pytest.raises(ValueError, match="holds 2000 vectors, not 5"):
        open_similarities(tmp_path, vectors[:5])


def test_equal_scores_share_the_middle_of_their_ranks():
    scores = np.array([3, 1, 1, 5, 1], np.float32)
    np.testing.assert_array_equal(middle_ranks(scores), [2, 4, 4, 1, 4])
    assert [rank_of(scores, row) for row in range(5)] == [2, 4, 4, 1, 4]
    assert rank_of(np.zeros(99, np.float32), 0) == 50


def test_fusions_are_their_formulas():
    lexical, dense = np.array([2, 0, 0, 1], np.float32), np.array([0.1, 0.9, 0.2, 0.3], np.float32)
    expected = [1 / 61 + 1 / 64, 1 / 63.5 + 1 / 61, 1 / 63.5 + 1 / 63, 1 / 62 + 1 / 62]
    np.testing.assert_allclose(fuse_ranks(lexical, dense), expected, rtol=1e-6)
    standard = [(x - x.mean()) / x.std() for x in (lexical, dense)]
    fused = fuse_scores(lexical, dense, dense_weight=0.25)
    np.testing.assert_allclose(fused, 0.75 * standard[0] + 0.25 * standard[1], rtol=1e-5)
    np.testing.assert_array_equal(fuse_scores(np.zeros(4, np.float32), dense, dense_weight=0.0), np.zeros(4))
    assert tune_weight(lambda weight: -abs(weight - 0.45)) == 0.45
    assert tune_weight(lambda weight: 1.0) == 0.0


def test_known_item_metrics_cut_at_ten():
    assert known_item_metrics([1, 2, 10, 11]) == {"mrr@10": (1 + 0.5 + 0.1) / 4, "recall@1": 0.25, "recall@10": 0.75}


def test_ndcg_is_its_formula_and_shares_gains_among_equals():
    gains = np.array([3.0, 0.0, 1.0])
    discounts = 1 / np.log2([2, 3, 4])
    ideal = 3 * discounts[0] + 1 * discounts[1]
    assert ndcg(np.array([1, 3, 2], np.float32), gains) == pytest.approx((3 * discounts[2] + discounts[1]) / ideal)
    assert ndcg(np.zeros(3, np.float32), gains) == pytest.approx(4 * discounts.mean() / ideal)
    assert ndcg(np.array([1, 3, 2], np.float32), gains, depth=1) == 0.0
    assert ndcg(np.zeros(3, np.float32), np.zeros(3)) == 1.0


def test_a_title_is_cut_out_of_the_body_with_all_its_repeats():
    assert cut_title("Ad sales (up)", "AD  Sales\n(UP). Then ad sales (up) again.") == ". Then again."
    assert cut_title("天气", "天气变化") == "变化"
    assert cut_title("", "body  as it is") == "body  as it is"
