"""From an experiment file, its parent and the command line's overrides to one typed, checked, frozen Experiment.

Layers are laid over one another, the competition's folds first and the overrides last. A layer that names another
choice for a section starts that section afresh, for the fields below belong to another class.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from components.nearest import did_you_mean
from pipelines.config.checks import shown
from pipelines.config.experiment_file import file_label, find_experiment, parse_overrides, read_experiment, read_values
from pipelines.config.modes import MODES
from pipelines.config.schema import DEFAULT_CHOICES, SECTIONS, STEP_SECTIONS, STEPLESS_MODELS, Experiment, Values
from pipelines.config.sections.section import Section
from pipelines.config.values import Scalar, checked_value, field_types
from pipelines.errors import ConfigError, PodiumError
from pipelines.names import run_name
from pipelines.workspace import Workspace

FoldsOf = Callable[[str], Mapping[str, Any]]

WORDS = ("name", "competition", "seed", "fold")
TOP_KEYS = (*WORDS, "parent", *SECTIONS)


@dataclass(frozen=True)
class Layer:
    """Values of one source; `label` is how messages name it."""

    origin: str
    label: str
    values: Values

    def refuse(self, problem: str) -> NoReturn:
        raise ConfigError(f"{self.label}: {problem}")


@dataclass
class Draft:
    """One section while layers are laid on it; `sources` tells which layer gave each field."""

    kind: str
    choice: str | None = None
    values: Values = field(default_factory=dict)
    sources: dict[str, Layer] = field(default_factory=dict)


def competition_folds(competition: str) -> Mapping[str, Any]:
    """The competition's own fold scheme: its name, and the fields it sets."""
    from pipelines.competitions.loading import load_competition

    return asdict(load_competition(competition).folds)


def load_experiment(
    workspace: Workspace,
    name: str,
    overrides: Sequence[str] = (),
    *,
    mode: str | None = None,
    folds_of: FoldsOf = competition_folds,
) -> Experiment:
    """Load an experiment by its address, `mt5_adafactor` or `smoke/mt5_adafactor`.

    `mode` "smoke" or "overfit" lays that mode's overrides on top, which depend on what the experiment says.

    Raises:
        ConfigError: Anything wrong, in one line: file, full key, value, cure.
    """
    address = find_experiment(workspace, name)
    file = Layer("file", file_label(workspace, address), read_experiment(workspace, address))
    parent = _read_parent(workspace, file)
    override = _override_layer(overrides)
    for key in ("name", "parent"):
        if key in override.values:
            override.refuse(f"{key}: only the file says this; copy the experiment to change it")
    layers = [layer for layer in (parent, file, override) if layer is not None]
    words = _merge_words(layers, file)
    layers.insert(0, _competition_layer(words["competition"], file, folds_of))
    words["name"] = run_name(address)
    experiment = _assemble(words, layers, file)
    if mode is None:
        return experiment
    changes = _override_layer([*overrides, *MODES[mode](experiment)])
    return _assemble(words, [*layers[:-1], changes], file)


def _override_layer(overrides: Sequence[str]) -> Layer:
    return Layer("override", "override", parse_overrides(overrides, "override"))


def load_run_config(run_dir: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Load the resolved config.yaml of a run directory; no experiment file and no competition is looked at."""
    path = run_dir / "config.yaml"
    file = Layer("file", str(path), read_values(path, str(path)))
    layers = [file]
    if overrides:
        layers.append(_override_layer(overrides))
    return _assemble(_merge_words(layers, file), layers, file)


def resolve_yaml(experiment: Experiment) -> str:
    """The whole experiment as YAML, every default written out; the same text for the same experiment, always."""
    return OmegaConf.to_yaml(OmegaConf.create(dict(experiment.raw)))


def flatten(experiment: Experiment) -> dict[str, Scalar]:
    """Every value under its dotted key, `optimizer.lr`, as trackers record it."""
    flat: dict[str, Scalar] = {}
    for key, value in experiment.raw.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}.{inner}": scalar for inner, scalar in value.items()})
        else:
            flat[key] = value
    return flat


def _read_parent(workspace: Workspace, file: Layer) -> Layer | None:
    if "parent" not in file.values:
        return None
    name = file.values["parent"]
    if not isinstance(name, str):
        file.refuse(f"parent: {name!r} is not text; needs the name of an experiment")
    try:
        address = find_experiment(workspace, name)
    except ConfigError as error:
        file.refuse(f"parent: {error}")
    label = file_label(workspace, address)
    if label == file.label:
        file.refuse(f"parent: {name} is this file itself; name another, or none")
    values = read_experiment(workspace, address)
    if "parent" in values:
        file.refuse(f"parent: {name} has a parent of its own, {values['parent']}; name that one and state what differs")
    return Layer(f"parent {name}", label, values)


def _competition_layer(competition: str, file: Layer, folds_of: FoldsOf) -> Layer:
    try:
        scheme = folds_of(competition)
    except (PodiumError, ValueError) as error:
        file.refuse(f"competition: {error}")
    choice = SECTIONS["folds"].get(scheme["name"])
    if choice is None:
        hint = did_you_mean(scheme["name"], SECTIONS["folds"])
        file.refuse(f"competition: {competition}: folds {scheme['name']!r} are not known{hint}")
    given = {key: scheme[key] for key in field_types(choice) if scheme.get(key) is not None}
    return Layer("competition", f"competition {competition}", {"folds": {"name": scheme["name"], **given}})


def _merge_words(layers: Sequence[Layer], file: Layer) -> Values:
    """The keys that stand outside sections, checked; unknown ones of any layer are refused."""
    types, words = field_types(Experiment), {}
    for layer in layers:
        for key, value in layer.values.items():
            if key not in TOP_KEYS:
                layer.refuse(f"{key}: no such key{_nearest_top_key(str(key))}")
            if key in WORDS:
                words[key] = _checked(layer, key, value, types[key])
    if "competition" not in words:
        file.refuse("competition: missing; needs the name of a file in pipelines/competitions/catalogue")
    defaults = {known.name: known.default for known in fields(Experiment)}
    return {key: words.get(key, defaults[key]) for key in WORDS}


def _assemble(words: Values, layers: Sequence[Layer], file: Layer) -> Experiment:
    drafts = {kind: _merge_section(kind, layers) for kind in SECTIONS}
    _drop_step_sections(drafts, layers)
    sections: dict[str, Any] = {}
    for kind, draft in drafts.items():
        if draft is not None:
            sections[kind] = _build_section(draft, file)
    raw: Values = dict(words)
    raw.update({kind: {"name": section.name, **asdict(section)} for kind, section in sections.items()})
    try:
        return Experiment(
            **words, **sections, parent=file.values.get("parent"), raw=raw, origins=_origins(layers, drafts)
        )
    except ValueError as error:
        key = str(error).partition(":")[0]
        _label_of(key, layers, drafts, file).refuse(str(error))


def _merge_section(kind: str, layers: Sequence[Layer]) -> Draft | None:
    draft = Draft(kind)
    for layer in layers:
        if kind in layer.values:
            _lay_over(draft, layer)
    if draft.choice is None:
        draft.choice = DEFAULT_CHOICES.get(kind)
    return draft


def _lay_over(draft: Draft, layer: Layer) -> None:
    """Lay one layer's section on the draft, starting afresh where it names another choice."""
    kind, given = draft.kind, layer.values[draft.kind]
    if not isinstance(given, dict):
        layer.refuse(
            f"{kind}: {shown(given)} where fields belong; write {kind}.name and what differs, as in `podium config`"
        )
    choice = given.get("name", draft.choice or DEFAULT_CHOICES.get(kind))
    if choice is None:
        layer.refuse(f"{kind}.name: missing; needs one of {', '.join(SECTIONS[kind])}")
    if choice not in list(SECTIONS[kind]):
        hint = did_you_mean(str(choice), SECTIONS[kind])
        layer.refuse(f"{kind}.name: {choice!r} is not known{hint or ';'} needs one of {', '.join(SECTIONS[kind])}")
    if choice != draft.choice:
        draft.choice, draft.values, draft.sources = choice, {}, {}
    types = field_types(SECTIONS[kind][choice])
    for key, value in given.items():
        if key != "name":
            if key not in types:
                layer.refuse(f"{kind}.{key}: {_unknown_field(kind, choice, str(key))}")
            draft.values[key] = _checked(layer, f"{kind}.{key}", value, types[key])
        draft.sources[key] = layer


def _drop_step_sections(drafts: dict[str, Draft | None], layers: Sequence[Layer]) -> None:
    """Take optimizer, schedule and training from an experiment whose model has no steps.

    Those of a layer below the one that chose the model are passed over; beside or above it they are a mistake.
    """
    model = drafts["model"]
    if model is None or model.choice not in STEPLESS_MODELS:
        return
    chooser = layers.index(model.sources["name"])
    for kind in STEP_SECTIONS:
        for layer in layers[chooser:]:
            if kind in layer.values:
                layer.refuse(f"{kind}: {model.choice} is fitted in one piece and has none; remove the section")
        drafts[kind] = None


def _build_section(draft: Draft, file: Layer) -> Section:
    kind = draft.kind
    if draft.choice is None:
        file.refuse(f"{kind}: missing; needs {kind}.name, one of {', '.join(SECTIONS[kind])}")
    choice = SECTIONS[kind][draft.choice]
    for known in fields(choice):
        if known.default is MISSING and known.name not in draft.values:
            file.refuse(f"{kind}.{known.name}: missing; {draft.choice} cannot do without")
    try:
        section: Section = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(choice), draft.values))  # type: ignore[assignment]
    except (ValueError, OmegaConfBaseException) as error:
        message = str(error).splitlines()[0]
        draft.sources.get(message.partition(":")[0], file).refuse(f"{kind}.{message}")
    return section


def _checked(layer: Layer, key: str, value: object, annotation: object) -> Scalar:
    try:
        return checked_value(value, annotation)
    except ValueError as error:
        layer.refuse(f"{key}: {error}")


def _origins(layers: Sequence[Layer], drafts: Mapping[str, Draft | None]) -> dict[str, str]:
    origins = {key: layer.origin for layer in layers for key in WORDS if key in layer.values}
    for kind, draft in drafts.items():
        if draft is not None:
            origins.update({f"{kind}.{key}": layer.origin for key, layer in draft.sources.items()})
    return origins


def _label_of(key: str, layers: Sequence[Layer], drafts: Mapping[str, Draft | None], file: Layer) -> Layer:
    """The layer that gave a full key, or the experiment's own file where it is a default."""
    kind, _, inner = key.partition(".")
    draft = drafts.get(kind)
    if draft is not None:
        return draft.sources.get(inner, file)
    return next((layer for layer in reversed(layers) if key in layer.values), file)


def _nearest_top_key(key: str) -> str:
    """What an unknown key outside the sections was meant to be: often a field without its section."""
    if hint := did_you_mean(key, TOP_KEYS):
        return hint
    homes = [kind for kind, choices in SECTIONS.items() if any(key in field_types(c) for c in choices.values())]
    if homes:
        return f"; did you mean {' or '.join(f'{kind}.{key}' for kind in homes)}?"
    return f"; known are {', '.join(TOP_KEYS)}"


def _unknown_field(kind: str, choice: str, key: str) -> str:
    known = list(field_types(SECTIONS[kind][choice]))
    owners = [name for name, section in SECTIONS[kind].items() if key in field_types(section)]
    if owners:
        return f"{choice} has no such key ({' and '.join(owners)} has)"
    hint = did_you_mean(key, known)
    if hint:
        return f"no such key{hint}"
    return f"no such key; {choice} has {', '.join(known) or 'none but name'}"
