"""`podium kernel build`: a Kaggle kernel generated from a run or an experiment, with the datasets it reads.

The same inputs give the same bytes: no times, no paths of this machine, of the environment only the owner's name.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from components.files.atomic import atomic_folder
from components.files.digests import file_digest
from components.files.linking import link_or_copy
from pipelines.addresses import KernelName
from pipelines.competitions.competition import Competition
from pipelines.competitions.embedded import check_manifest, read_manifest
from pipelines.competitions.loading import load_competition
from pipelines.competitions.prepare import prepare_missing
from pipelines.config.load import load_experiment, load_run_config, resolve_yaml
from pipelines.config.schema import Experiment
from pipelines.config.sections.section import starts_from_run
from pipelines.errors import PodiumError
from pipelines.kaggle.metadata import DATASET_METADATA, KERNEL_METADATA, DatasetMetadata, Licence
from pipelines.kernels import source_bundle
from pipelines.kernels.built_kernel import BuiltKernel, find_owner, load_built_kernel
from pipelines.kernels.kernel_file import KernelFile, kernel_words, load_kernel_file
from pipelines.kernels.kinds import KernelMode
from pipelines.kernels.manifest import MANIFEST, BuildFlags, BuiltDataset, Manifest
from pipelines.kernels.notebook import EMBEDDED, IN_DATASET, render_metadata, render_notebook
from pipelines.kernels.packed_run import pack_run
from pipelines.kernels.plan import FOLDS, PLAN, RUN, PlacedFile, Plan, WeightsInput, WheelsInput
from pipelines.kernels.wheels import obtain_wheels
from pipelines.modes import OVERFIT, REAL, SMOKE, warn_of_mode
from pipelines.records import Record
from pipelines.runs import digests as run_digests
from pipelines.runs.fold_file import hash_folds, obtain_folds
from pipelines.runs.folds import check_finished
from pipelines.runs.run import Run
from pipelines.runs.source.state import hash_source
from pipelines.screen import format_bytes, format_score
from pipelines.workspace import Workspace

FORMAT = 1
# Files up to this size travel in the notebook, so that they are pinned by it.
SMALL_BYTES = 16_000


@dataclass(frozen=True)
class Dataset:
    """A flat folder to upload; `paths` are the places of its files in a run directory, where they have one."""

    slug: str
    kind: str
    files: Mapping[str, Path | bytes]
    paths: Mapping[str, str]

    def digests(self) -> dict[str, str]:
        return {name: _digest(content) for name, content in sorted(self.files.items())}

    def describe(self) -> BuiltDataset:
        return BuiltDataset(slug=self.slug, kind=self.kind, files=self.digests(), paths=dict(self.paths))


@dataclass(frozen=True)
class Subject:
    """What a kernel is built from: an experiment, and with predict the run."""

    experiment: Experiment
    competition: Competition
    run: Run | None
    folds: Sequence[int]
    folds_sha256: str
    source_sha256: str = field(default_factory=hash_source)
    training_mode: str = REAL

    @property
    def run_mode(self) -> str:
        """Of the run that is packed, or of the one that the kernel will train."""
        return self.training_mode if self.run is None else self.run.mode


def build(
    workspace: Workspace, slug: str, *, run: str | None = None, resume: bool = False, mode: str | None = None
) -> BuiltKernel:
    """Write build/kernels/<slug>/ and the datasets it needs, and return them.

    `run` overrides the run that kernel.yaml means; `resume` attaches a training kernel's own former output. `mode`
    "smoke" cuts a training to a few steps; a kernel that predicts is then built from the newest run of that mode, which
    an experiment's name alone never means. Raises PodiumError naming what is missing, with nothing half-written.
    """
    file = load_kernel_file(workspace, slug)
    if resume and file.mode is not KernelMode.TRAIN:
        raise PodiumError(f"{slug}: --resume is for a kernel that trains; this one predicts")
    kernel = KernelName(find_owner(file.owner), slug)
    subject = (
        _find_run(workspace, file, run, mode or REAL)
        if file.mode is KernelMode.PREDICT
        else _load_training(workspace, file, run, mode)
    )
    weights = None if subject.run is None else _weights(slug, subject.run)
    data = _data(workspace, subject.competition)
    wheels = _wheels(workspace, slug, file)
    plan = _plan(kernel, file, subject, weights, data, wheels)
    packed = source_bundle.pack(_bundle_files(subject, weights, plan))
    notebook, code = _render(slug, kernel_words(workspace, slug), _facts(subject), packed)
    datasets = [dataset for dataset in (weights, data, wheels, code) if dataset is not None]
    metadata = render_metadata(
        file,
        kernel=kernel,
        code_file=f"{slug}.ipynb",
        datasets=[_named(kernel, dataset) for dataset in datasets],
        competitions=[] if data is not None else [subject.competition.kaggle_slug],
        kernels=[kernel] if resume else [],
    )
    texts = {f"{slug}.ipynb": notebook, KERNEL_METADATA: _pretty(metadata)}
    flags = BuildFlags(resume=resume, mode=mode if file.mode is KernelMode.TRAIN else None)
    manifest = _manifest(kernel, file, subject, texts, datasets, flags)
    _write(workspace, kernel, texts | {MANIFEST: _pretty(manifest)}, datasets)
    built = load_built_kernel(workspace, slug)
    _report(built, subject)
    return built


# -- what it is built from -------------------------------------------------------------------------------------------


def _find_run(workspace: Workspace, file: KernelFile, run: str | None, mode: str) -> Subject:
    name = run or file.run
    chosen = Run.find(workspace.runs, name) if name else Run.newest_finished(workspace.runs, _word(file), mode=mode)
    check_finished(chosen)
    if run is None and file.experiment and chosen.experiment != _word(file):
        raise PodiumError(f"{chosen.path}: a run of {chosen.experiment}, where kernel.yaml says {_word(file)}")
    chosen.check_prediction_files()
    run_digests.check_run_file(chosen.path, chosen.record, chosen.folds_file.name)
    folds = [int(line.rsplit(",", 1)[1]) for line in chosen.folds_file.read_text(encoding="utf-8").splitlines()[1:]]
    digest = str(chosen.record.folds_sha256)
    return Subject(load_run_config(chosen.path), load_competition(chosen.competition), chosen, folds, digest)


def _word(file: KernelFile) -> str:
    return str(file.experiment).replace("/", "_")


def _load_training(workspace: Workspace, file: KernelFile, run: str | None, mode: str | None) -> Subject:
    if run is not None:
        raise PodiumError(f"--run {run}: this kernel trains a run of its own; leave it out")
    if mode == OVERFIT:
        raise PodiumError("OVERFIT=1: a kernel trains no overfit run; leave it out, or make one here: make experiment")
    name = str(file.experiment)
    overrides = [*file.overrides, "tracking.name=jsonl"]
    experiment = load_experiment(workspace, name, overrides, mode=mode)
    if starts_from_run(experiment.model):
        checkpoint = experiment.raw["model"]["checkpoint"]
        raise PodiumError(f"{name}: model.checkpoint: {checkpoint} lies on this machine only; train here")
    _check_checkpoint(file, name, getattr(experiment.model, "checkpoint", None))
    if getattr(experiment.data, "trim_for", None) is not None:
        raise PodiumError(f"{name}: data.trim_for needs another competition's data, which a kernel lacks; train here")
    competition = load_competition(experiment.competition)
    prepare_missing(workspace, competition)
    data_dir = workspace.data_dir(competition.kaggle_slug)
    train = competition.load_train(data_dir)
    folds = obtain_folds(experiment, competition, train, data_dir)
    digest = hash_folds(train, folds)
    return Subject(experiment, competition, None, folds.tolist(), digest, training_mode=mode or REAL)


def _check_checkpoint(file: KernelFile, experiment: str, checkpoint: str | None) -> None:
    """What a training begins with must be attached to the kernel, or be on the hub and the kernel on the internet."""
    if checkpoint is None:
        return
    # Torch comes with them, which only a training with a checkpoint has to wait for.
    from components.models.shared.pretrained import KAGGLE_PREFIX
    from pipelines.config.checkpoints import PACKAGE_PREFIX

    where = f"{experiment}: model.checkpoint: {checkpoint}"
    if checkpoint.startswith(KAGGLE_PREFIX):
        source = checkpoint.removeprefix(KAGGLE_PREFIX)
        if source.lower() not in [name.lower() for name in (*file.dataset_sources, *file.model_sources)]:
            key = "model_sources" if source.count("/") == 4 else "dataset_sources"
            raise PodiumError(f"{where} is not attached; add {source} to {key} in kernel.yaml")
    elif checkpoint.startswith(PACKAGE_PREFIX) or Path(checkpoint).expanduser().exists():
        cure = "train here, or make a dataset of it and write model.checkpoint=kaggle:owner/slug under overrides"
        raise PodiumError(f"{where} lies on this machine only; {cure}")
    elif not file.internet:
        cure = "attach it under model_sources and write model.checkpoint=kaggle:... under overrides"
        raise PodiumError(f"{where} would have to be downloaded, and internet is false; {cure}")


# -- datasets --------------------------------------------------------------------------------------------------------


def _weights(slug: str, run: Run) -> Dataset:
    """Checkpoints and vocabulary, flat: Kaggle's client leaves sub-folders out."""
    paths = {_flat(path, run): path for path in run.prediction_files() if not _is_small(path)}
    places = {name: path.relative_to(run.path).as_posix() for name, path in paths.items()}
    return Dataset(f"{slug}-weights", "weights", paths, places)


def _flat(path: Path, run: Run) -> str:
    return path.relative_to(run.path).as_posix().replace("/", "__")


def _is_small(path: Path) -> bool:
    return path.stat().st_size <= SMALL_BYTES and path.suffix in (".json", ".yaml")


def _data(workspace: Workspace, competition: Competition) -> Dataset | None:
    """An embedded competition's files for competitors; those of Kaggle's own are mounted by their slug."""
    if competition.prepare is None:
        return None
    data_dir = workspace.data_dir(competition.kaggle_slug)
    if not check_manifest(data_dir):
        raise PodiumError(f"{data_dir}: incomplete; write it with: podium data prepare {competition.name}")
    files = {name: data_dir / name for name in read_manifest(data_dir)}
    return Dataset(f"{competition.kaggle_slug}-data", "data", files, {})


def _wheels(workspace: Workspace, slug: str, file: KernelFile) -> Dataset | None:
    if not file.wheels:
        return None
    lock, cache = workspace.kernels / slug / "wheels.lock", workspace.build / "wheels"
    wheels = obtain_wheels(file.wheels, lock=lock, cache=cache, image=workspace.image_constraints)
    return Dataset(f"{slug}-wheels", "wheels", {path.name: path for path in wheels}, {})


# -- what is written -------------------------------------------------------------------------------------------------


def _named(kernel: KernelName, dataset: Dataset) -> KernelName:
    """A dataset is its kernel's owner's."""
    return KernelName(kernel.owner, dataset.slug)


def _plan(
    kernel: KernelName,
    file: KernelFile,
    subject: Subject,
    weights: Dataset | None,
    data: Dataset | None,
    wheels: Dataset | None,
) -> Plan:
    """What `pipelines.kernels.session` carries out."""

    def mount(dataset: Dataset) -> str:
        return _named(kernel, dataset).dataset_mount

    return Plan(
        format=FORMAT,
        kernel=kernel,
        mode=file.mode,
        competition=subject.competition.name,
        experiment=subject.experiment.name,
        run=subject.run.path.name if subject.run else None,
        data=mount(data) if data else f"competitions/{subject.competition.kaggle_slug}",
        weights=WeightsInput(mount=mount(weights), files=_placed(weights)) if weights else None,
        wheels=WheelsInput(mount=mount(wheels), files=tuple(sorted(wheels.files))) if wheels else None,
        # Its own output is there only where it was attached.
        resume_from=(kernel.output_mount, *(f"notebooks/{source}" for source in file.kernel_sources)),
        folds_sha256=subject.folds_sha256,
        source_sha256=subject.source_sha256,
        accelerator=file.accelerator,
        accelerator_kind=file.kind,
        train_seconds=3600 * file.time_limit_hours - 60 * file.reserve_minutes,
        run_mode=SMOKE if subject.training_mode == SMOKE else None,
    )


def _placed(weights: Dataset) -> dict[str, PlacedFile]:
    return {name: PlacedFile(path=weights.paths[name], sha256=sha256) for name, sha256 in weights.digests().items()}


def _bundle_files(subject: Subject, weights: Dataset | None, plan: Plan) -> dict[str, bytes]:
    files = source_bundle.collect_source()
    files[PLAN] = _json(plan.entries())
    files[FOLDS] = "\n".join(map(str, subject.folds)).encode()
    if subject.run is None:
        return files | {f"{RUN}/config.yaml": resolve_yaml(subject.experiment).encode()}
    assert weights is not None
    return files | {f"{RUN}/{place}": content for place, content in pack_run(subject.run, weights.paths.values())}


def _render(slug: str, words: str, facts: Mapping[str, str], packed: bytes) -> tuple[str, Dataset | None]:
    """The notebook with the source in it, or without and a dataset that holds it."""
    sha256, compressed = source_bundle.digest(packed), source_bundle.compress(packed)
    text = source_bundle.encode(compressed)
    notebook = render_notebook(words, facts, EMBEDDED.format(text=text, sha256=sha256))
    if len(notebook.encode()) <= source_bundle.MAX_EMBEDDED_BYTES:
        return notebook, None
    code = Dataset(f"{slug}-code", "code", {source_bundle.PACKED: compressed}, {})
    unpacking = IN_DATASET.format(slug=code.slug, name=source_bundle.PACKED, sha256=sha256)
    return render_notebook(words, facts, unpacking), code


def _facts(subject: Subject) -> dict[str, str]:
    """The table under the notebook's words."""
    competition = subject.competition
    facts = {"competition": competition.title, "experiment": f"`{subject.experiment.name}`"}
    if subject.run_mode != REAL:
        facts["mode"] = warn_of_mode(subject.run_mode)
    if subject.run is not None:
        facts["run"] = f"`{subject.run.path.name}`"
        scores = subject.run.read_metrics()
        names = [f"cv/{metric}" for metric in (competition.metric, *competition.extra_metrics)]
        facts |= {name: format_score(scores[name]) for name in names if name in scores}
        record = subject.run.record
        changes = " and changes" if record.dirty else ""
        if record.commit and record.dirty is None:
            changes = ", changes unknown"
        facts["commit"] = f"`{(record.commit or 'none')[:12]}`{changes}"
        if record.source_sha256 != subject.source_sha256:
            facts["trained with source"] = f"`{str(record.source_sha256)[:16]}…`, sha256"
    return facts | {"source": f"`{subject.source_sha256[:16]}…`, sha256"}


def _manifest(
    kernel: KernelName,
    file: KernelFile,
    subject: Subject,
    texts: Mapping[str, str],
    datasets: Sequence[Dataset],
    flags: BuildFlags,
) -> Manifest:
    described = tuple(dataset.describe() for dataset in datasets)
    files = {name: source_bundle.digest(text.encode()) for name, text in sorted(texts.items())}
    below = {"files": files, "datasets": [dataset.entries() for dataset in described]}
    return Manifest(
        format=FORMAT,
        kernel=kernel,
        mode=file.mode,
        built_with=flags,
        competition=subject.competition.name,
        kaggle_slug=subject.competition.kaggle_slug,
        experiment=subject.experiment.name,
        run=subject.run.path.name if subject.run else None,
        run_mode=subject.run_mode,
        commit=subject.run.record.commit if subject.run else None,
        config_sha256=source_bundle.digest(resolve_yaml(subject.experiment).encode()),
        folds_sha256=subject.folds_sha256,
        source_sha256=subject.source_sha256,
        timeout_seconds=round(3600 * file.time_limit_hours),
        bundle_sha256=source_bundle.digest(_json(below)),
        files=files,
        datasets=described,
    )


def _write(workspace: Workspace, kernel: KernelName, texts: Mapping[str, str], datasets: Sequence[Dataset]) -> None:
    for dataset in datasets:
        with atomic_folder(workspace.build / "datasets" / dataset.slug) as folder:
            for name, content in dataset.files.items():
                if isinstance(content, bytes):
                    (folder / name).write_bytes(content)
                else:
                    link_or_copy(str(content), str(folder / name))
            licences = (Licence(name="other"),)
            about = DatasetMetadata(id=_named(kernel, dataset), licenses=licences, title=dataset.slug)
            about.write(folder / DATASET_METADATA)
    place = workspace.build / "kernels" / kernel.slug
    manifest = place / MANIFEST
    if manifest.is_file() and manifest.read_text(encoding="utf-8") == texts[MANIFEST]:
        return  # what it was rehearsed as, it still is
    with atomic_folder(place) as folder:
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")


def _report(built: BuiltKernel, subject: Subject) -> None:
    if subject.run is not None:
        print(f"run     {subject.run.path}")
    if subject.run_mode != REAL:
        print(f"mode    {warn_of_mode(subject.run_mode)}")
    print(f"kernel  {built.code_file}  {format_bytes(built.code_file.stat().st_size)}")
    for dataset in built.datasets:
        files = [path for path in dataset.folder.iterdir() if path.name != DATASET_METADATA]
        size = format_bytes(sum(path.stat().st_size for path in files))
        print(f"{dataset.kind:7} {dataset.folder}  {len(files)} files, {size}")
    print(f"bundle  {built.manifest.bundle_sha256}")


def _pretty(record: Record) -> str:
    return json.dumps(record.entries(), indent=2, ensure_ascii=False) + "\n"


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n").encode()


def _digest(content: Path | bytes) -> str:
    return source_bundle.digest(content) if isinstance(content, bytes) else file_digest(content)
