"""A tiny corpus and an encoder without weights: vectors are hashed words, so that equal words are near."""

from hashlib import blake2b

import numpy as np

from components.search.articles import Article
from components.search.text_folding import TextFolder

SIMPLIFIED = {"經": "经", "濟": "济", "國": "国", "學": "学", "華": "华", "師": "师", "電": "电", "腦": "脑"}

ARTICLES = (
    Article(
        "a", "Bank cuts interest rates", "The central bank lowered rates on Monday. Shares rose.", topic="business"
    ),
    Article(
        "b", "Striker signs for City", "The club paid a record fee for the striker.", "2018-05-03", "Post", "sports"
    ),
    Article("c", "中国经济增长", "国家统计局公布的经济数据显示增长放缓。", "2018-12-27", "新华网", "neutral"),
    Article("d", "中國留學生", "一首歌曲送給華裔老師，電腦前的學生都聽過。", "2019-01-28", "新华网", "negative"),
    Article("e", "No date, no source", "Rates of interest in weather are low."),
)


class HashEncoder:
    """Counts the calls; `seed` makes another encoder."""

    dimension = 32

    def __init__(self, seed: int = 0) -> None:
        self.name, self.seed, self.num_texts = f"hash{seed}", seed, 0
        self.fingerprint = f"{seed:064d}"

    def encode(self, texts):
        self.num_texts += len(texts)
        vectors = np.full((len(texts), self.dimension), 1e-3, np.float32)
        for row, text in enumerate(texts):
            for word in TextFolder(SIMPLIFIED).fold(text).split():
                place = blake2b(word.encode(), digest_size=2, key=bytes([self.seed])).digest()
                vectors[row, int.from_bytes(place, "big") % self.dimension] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
