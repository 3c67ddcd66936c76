"""Kaggle's rules for kernels and datasets, as far as they can be held against a built kernel without asking Kaggle.

Each rule is a function from a built kernel to findings; what Kaggle alone knows is asked for in `account_rules`.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from pipelines.kaggle.metadata import DATASET_METADATA
from pipelines.kernels.built_kernel import NO_OWNER, BuiltKernel
from pipelines.kernels.kernel_file import KernelFile, slugify
from pipelines.kernels.kinds import KernelMode, Machine
from pipelines.kernels.rehearsal.report import Image, RehearsalReport, read_report
from pipelines.kernels.source_bundle import MAX_SOURCE_BYTES, unpack_notebook, unpack_packed
from pipelines.redaction import MIN_LENGTH, find_secrets, known_secrets
from pipelines.screen import format_bytes, format_duration

MIN_TITLE, MAX_TITLE = 5, 50
MIN_DATASET, MAX_DATASET = 6, 50
MAX_FILES = 50
MAX_DATASET_BYTES = 200 * 10**9
# Kaggle's machines were never seen faster than what people rehearse on by more than this.
SAFETY = 1.5
SESSION_HOURS = {Machine.CPU: 12.0, Machine.GPU: 12.0, Machine.TPU: 9.0}
MACHINE_GB = {Machine.CPU: 30.0, Machine.GPU: 29.0, Machine.TPU: 330.0}
UNPACKED = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".gz", ".bz2", ".xz")
FREE_FOR_ALL = ("none", "NvidiaTeslaT4", "TpuV5E8")

# No secret that is looked for is shorter.
_READABLE = re.compile(rb"[\t\n\r\x20-\x7e]{%d,}" % MIN_LENGTH)


class FindingState(StrEnum):
    """How a rule stands."""

    OK = "ok"
    WRONG = "wrong"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True)
class Finding:
    """One line of a preflight: the rule, how it stands, and, where it is wrong, what is and what cures it."""

    rule: str
    state: FindingState
    words: str


Rule = Callable[[BuiltKernel, KernelFile], Iterator[Finding]]


def check_title(kernel: BuiltKernel, file: KernelFile) -> Iterator[Finding]:
    """Lengths, and that the title makes the slug: else the server takes the title's and later calls miss it."""
    title, slug = kernel.metadata.title, kernel.kernel.slug
    if not MIN_TITLE <= len(title) <= MAX_TITLE:
        yield _bad("title", f"{title!r} has {len(title)} characters; Kaggle takes {MIN_TITLE} to {MAX_TITLE}")
    elif len(slug) < MIN_TITLE:
        yield _bad("title", f"slug {slug} is too short; rename its folder to {MIN_TITLE} characters or more")
    elif slugify(title) != slug:
        yield _bad("title", f"{title!r} makes the slug {slugify(title)}, not {slug}; rename the folder or the title")
    else:
        yield _ok("title", f"{title!r} makes {slug}")


def check_owner(kernel: BuiltKernel, file: KernelFile) -> Iterator[Finding]:
    """A kernel needs a user's name."""
    if kernel.kernel.owner == NO_OWNER:
        yield _bad("owner", "nobody's yet: write owner: into kernel.yaml or set KAGGLE_USERNAME, and build again")
    else:
        yield _ok("owner", kernel.kernel.owner)


def check_source(kernel: BuiltKernel, file: KernelFile) -> Iterator[Finding]:
    """The size as the client sends it, and a kernelspec, without which Kaggle's papermill refuses a notebook."""
    notebook = json.loads(kernel.code_file.read_text(encoding="utf-8"))
    size = len(json.dumps(notebook).encode())
    if size >= MAX_SOURCE_BYTES:
        yield _bad("source", f"{format_bytes(size)}; Kaggle takes less than 1 MB: build again, it moves into a dataset")
    elif "kernelspec" not in notebook.get("metadata", {}):
        yield _bad("source", "no kernelspec in the notebook's metadata; build the kernel again")
    else:
        yield _ok("source", f"{format_bytes(size)} of 1 MB")


def check_metadata(kernel: BuiltKernel, file: KernelFile) -> Iterator[Finding]:
    """Combinations that Kaggle refuses or changes in silence."""
    metadata = kernel.metadata
    competitions = metadata.competition_sources
    if metadata.enable_internet and competitions:
        yield _bad("internet", "on, which an offline code competition refuses at push; set internet: false")
    else:
        yield _ok("internet", "on" if metadata.enable_internet else "off")
    if len(competitions) > 1:
        yield _bad("competitions", f"{', '.join(competitions)}: two can change the GPU you get; attach one")
    if "utility script" in metadata.keywords and competitions:
        yield _bad("keywords", "a utility script may not have a competition; drop one of them")
    if file.accelerator not in FREE_FOR_ALL:
        yield _unknown("accelerator", f"{file.accelerator} is for some competitions only; others get the default")
    else:
        yield _ok("accelerator", file.accelerator)
    for source in metadata.model_sources:
        if not is_model_version(source):
            yield _bad("models", f"{source}: needs owner/model/framework/variation/version, the version a number")
    for source in [*metadata.dataset_sources, *metadata.kernel_sources]:
        if not is_source(source):
            yield _bad("sources", f"{source}: needs owner/slug")


def is_model_version(source: str) -> bool:
    """Whether it names a version of a Kaggle Model in full."""
    return re.fullmatch(r"([^/]+/){4}\d+", source) is not None


def is_source(source: str) -> bool:
    """Whether it names a dataset or a kernel, perhaps with its version."""
    return re.fullmatch(r"[^/]+/[^/]+(/\d+)?", source) is not None


def check_datasets(kernel: BuiltKernel, file: KernelFile) -> Iterator[Finding]:
    """Names, number of files, sizes, and that nothing is unpacked on arrival."""
    for dataset in kernel.datasets:
        slug = dataset.name.slug
        files = [path for path in dataset.folder.iterdir() if path.name != DATASET_METADATA]
        size = sum(path.stat().st_size for path in files)
        archives = [path.name for path in files if path.name.lower().endswith(UNPACKED)]
        what = f"dataset {slug}"
        if not MIN_DATASET <= len(slug) <= MAX_DATASET:
            yield _bad(what, f"{len(slug)} characters; Kaggle takes {MIN_DATASET} to {MAX_DATASET}: shorten the slug")
        elif len(files) > MAX_FILES:
            yield _bad(what, f"{len(files)} files; Kaggle takes {MAX_FILES}: train fewer folds, or use a Kaggle Model")
        elif size > MAX_DATASET_BYTES:
            yield _bad(what, f"{format_bytes(size)}; Kaggle takes 200 GB")
        elif archives:
            yield _bad(what, f"{archives[0]}: Kaggle unpacks archives, and the kernel would miss it; rename it")
        else:
            yield _ok(what, f"{len(files)} files, {format_bytes(size)}")


def check_limits(kernel: BuiltKernel, file: KernelFile) -> Iterator[Finding]:
    """kernel.yaml's own limits against the machine's."""
    hours, memory = SESSION_HOURS[file.kind], MACHINE_GB[file.kind]
    if file.time_limit_hours > hours:
        yield _bad("limits", f"time_limit_hours: {file.time_limit_hours:g}, but a session ends after {hours:g}")
    elif file.memory_gb > memory:
        yield _bad("limits", f"memory_gb: {file.memory_gb:g}, but the machine has {memory:g}")
    else:
        yield _ok("limits", f"{file.time_limit_hours:g} h, {file.memory_gb:g} GB")


def check_rehearsal(kernel: BuiltKernel, file: KernelFile) -> Iterator[Finding]:
    """That this very kernel was rehearsed, and what its figures come to on the hidden test set."""
    report, build = read_report(kernel.folder, Image.HERE), kernel.manifest.bundle_sha256
    cure = f"run: podium kernel rehearse {kernel.kernel.slug}"
    if report is None:
        yield _unknown("rehearsal", f"none yet, so no forecast of time and memory; {cure}")
        return
    if not report.ok or report.bundle_sha256 != build:
        yield _bad("rehearsal", f"{'of another build' if report.ok else 'failed'}; {cure}")
        return
    with_image = read_report(kernel.folder, Image.KAGGLE)
    if with_image is not None and not with_image.ok and with_image.bundle_sha256 == build:
        yield _bad("rehearsal", f"failed with Kaggle's libraries; {cure} --image kaggle")
    yield _ok("rehearsal", f"{len(report.cases)} cases, {format_bytes(report.peak_bytes)} at most")
    yield from _forecast(report, file)


def _forecast(report: RehearsalReport, file: KernelFile) -> Iterator[Finding]:
    limit, memory = 3600 * file.time_limit_hours, file.memory_gb * 1e9
    if file.mode is KernelMode.TRAIN:
        keeps = format_duration(60 * file.reserve_minutes)
        yield _ok("time", f"it stops and saves itself {keeps} before its limit of {format_duration(limit)}")
    elif report.startup_seconds is None or report.seconds_per_row is None:
        yield _unknown("time", "no rerun was rehearsed, so nothing forecasts it")
    else:
        rows = file.hidden_rows or report.num_public_rows
        seconds = report.startup_seconds + SAFETY * report.seconds_per_row * rows
        words = f"{format_duration(seconds)} for {rows:,} rows ({report.seconds_per_row:.2g} s each × {SAFETY})"
        if seconds > limit:
            yield _bad("time", f"{words}; the limit is {format_duration(limit)}: fewer beams, folds or a GPU")
        else:
            yield _ok("time", f"{words} of {format_duration(limit)}")
    words = f"{format_bytes(report.peak_bytes)} × {SAFETY} of {format_bytes(memory)}"
    if SAFETY * report.peak_bytes > memory:
        yield _bad("memory", f"{words}: smaller batches, or another machine")
    else:
        yield _ok("memory", words)


def check_answers(kernel: BuiltKernel, file: KernelFile) -> Iterator[Finding]:
    """The answers of an embedded competition stay here."""
    found = [path for path in kernel.uploaded_files() if "solution" in path.name.lower()]
    if found:
        yield _bad("answers", f"{found[0]}: looks like the answers, and would be uploaded; take it away")
    else:
        yield _ok("answers", "none among the files")


def check_secrets(kernel: BuiltKernel, file: KernelFile) -> Iterator[Finding]:
    """Nothing that is uploaded holds a token, as a value this machine knows or by its looks. Never prints one."""
    known, num_files = known_secrets(), 0
    found = False
    for name, content in list_uploaded_texts(kernel):
        num_files += 1
        for secret in find_secrets(content, known):
            found = True
            yield _bad("secrets", f"{name}, line {secret.line}: {secret.kind}; take it out and build again")
    if not found:
        yield _ok("secrets", f"none in {num_files} files")


def list_uploaded_texts(kernel: BuiltKernel) -> Iterator[tuple[str, str]]:
    """Every file that would be uploaded, what is packed into the notebook or a code dataset included, as text."""
    for path in kernel.uploaded_files():
        content = path.read_bytes()
        yield path.name, _words_of(content)
        packed = unpack_notebook(content) if path == kernel.code_file else unpack_packed(path.name, content)
        for name, inner in packed.items():
            yield f"{path.name}: {name}", inner.decode("utf-8", errors="replace")


def _words_of(content: bytes) -> str:
    """A text as it is; of weights only what could be read: the patterns would take minutes over their noise."""
    if b"\0" not in content:
        return content.decode("utf-8", errors="replace")
    return b"\n".join(_READABLE.findall(content)).decode("ascii")


RULES: tuple[Rule, ...] = (
    check_title,
    check_owner,
    check_source,
    check_metadata,
    check_datasets,
    check_limits,
    check_rehearsal,
    check_answers,
    check_secrets,
)


def _ok(rule: str, words: str) -> Finding:
    return Finding(rule, FindingState.OK, words)


def _bad(rule: str, words: str) -> Finding:
    return Finding(rule, FindingState.WRONG, words)


def _unknown(rule: str, words: str) -> Finding:
    return Finding(rule, FindingState.NOT_CHECKED, words)
