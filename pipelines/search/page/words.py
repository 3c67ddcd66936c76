"""Every word of the page, in Chinese and in English."""

LANGUAGES = {"zh": "中文", "en": "English"}

_WORDS = {
    "title": ("新闻检索", "News search"),
    "subtitle": ("按字面，也按含义", "By word and by meaning"),
    "corpus": ("语料", "Corpus"),
    "language": ("界面", "Interface"),
    "query": ("检索词", "Query"),
    "placeholder": ("输入一个词、一句话，简体繁体皆可", "A word, a sentence, a headline"),
    "filters": ("筛选", "Filters"),
    "mode": ("排序", "Ranking"),
    "hybrid": ("综合", "Both"),
    "lexical": ("字面", "Words"),
    "dense": ("含义", "Meaning"),
    "dates": ("日期", "Dates"),
    "dates_help": (
        "只有 {dated:,} 篇文章在正文里写明日期，其余不参与日期筛选",
        "Only {dated:,} articles state a date; the others drop out",
    ),
    "topics": ("类别", "Topics"),
    "tones": ("情感", "Tone"),
    "any": ("不限", "Any"),
    "sources": ("来源", "Sources"),
    "found": (
        "{shown} / {admitted:,} 篇，{milliseconds:.0f} 毫秒",
        "{shown} of {admitted:,} articles, {milliseconds:.0f} ms",
    ),
    "more": ("更多结果", "More results"),
    "back": ("← 返回结果", "← Back to the results"),
    "whole": ("全文", "Whole article"),
    "score": ("总分", "Score"),
    "start": ("试试这些", "Try one of these"),
    "none": (
        "没有找到。换一个说法，或放宽筛选条件。",
        "Nothing found. Other words may help, or fewer filters.",
    ),
    "empty_query": (
        "检索词里没有文字或数字。请输入一个词或一句话。",
        "There is no word or number in this query. Type a word or a sentence.",
    ),
    "cut": ("检索词过长，只用了前 {limit:,} 个字符。", "The query is long; its first {limit:,} characters were used."),
    "no_index": (
        "还没有可检索的语料。请先运行 podium search index chinese_news",
        "There is nothing to search in yet. Run podium search index chinese_news",
    ),
    "no_corpus": (
        "没有名为 {name} 的语料；以下是可用的。",
        "There is no corpus called {name}; these are here.",
    ),
    "no_article": ("链接里的文章已不在语料中。", "The article of this link is no longer in the corpus."),
    "broken": (
        "{name} 的索引无法使用。请重新建立：podium search index {name} --force",
        "The index of {name} cannot be used. Make it again: podium search index {name} --force",
    ),
    "no_encoder": ("编码服务没有回应。", "The encoder's service does not answer."),
    "failed": (
        "检索未能完成，原因已写入服务器日志。请再试一次。",
        "The search did not finish; the server's log says why. Please try again.",
    ),
    "health": (
        "模型加载 {encoder_loads} 次 · 索引加载 {index_loads} 次 · 检索 {searches:,} 次 · p50 {p50} 毫秒 · "
        "p95 {p95} 毫秒 · 内存 {rss} MB",
        "model loads {encoder_loads} · index loads {index_loads} · searches {searches:,} · p50 {p50} ms · "
        "p95 {p95} ms · {rss} MB",
    ),
    "chinese_news": ("中文新闻", "Chinese news"),
    "english_news": ("英文新闻", "English news"),
    "lee": ("Lee 语料", "Lee corpus"),
    "negative": ("负面", "negative"),
    "neutral": ("中性", "neutral"),
    "positive": ("正面", "positive"),
    "business": ("财经", "business"),
    "entertainment": ("娱乐", "entertainment"),
    "politics": ("政治", "politics"),
    "sports": ("体育", "sports"),
    "tech": ("科技", "technology"),
}  # fmt: skip

EXAMPLES = {
    "chinese_news": ("地震救援", "大学生就业", "高铁新线路开通", "空气污染治理", "春节返乡", "人工智能"),
    "english_news": ("interest rates", "Six Nations injury", "film awards", "online music piracy", "election campaign"),
    "lee": ("bushfire", "cricket", "election"),
}


def say(language: str, key: str, **values: object) -> str:
    """A sentence or word in a language; a key without an entry is its own word."""
    if key not in _WORDS:
        return key
    return _WORDS[key][list(LANGUAGES).index(language)].format(**values)
