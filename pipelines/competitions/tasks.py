"""The tasks, and which metrics can score each of them."""

from components.metrics.table import METRICS

# The forms of prediction that can be scored in each task's submissions.
TASKS: dict[str, tuple[str, ...]] = {
    "binary": ("labels", "probabilities"),
    "multiclass": ("labels", "probabilities"),
    "multilabel": ("labels", "probabilities"),
    "regression": ("values", "labels"),
    "text_to_text": ("texts",),
}
# Metrics whose form of prediction fits a task while their arithmetic does not: F-beta and AUC know one positive class,
# accuracy and kappa one answer a row, and ranks need several classes.
_OTHER_ARITHMETIC: dict[str, tuple[str, ...]] = {
    "binary": ("map_at_3", "map_at_5"),
    "multiclass": ("f1", "f2", "f1_fitted", "f2_fitted", "auc"),
    "multilabel": ("accuracy", "macro_f1", "qwk", "map_at_3", "map_at_5"),
}


def fitting_metrics(task: str) -> list[str]:
    """The metrics that can score a task, in the order of the table."""
    unfit = _OTHER_ARITHMETIC.get(task, ())
    return [name for name, metric in METRICS.items() if metric.needs in TASKS[task] and name not in unfit]


def submits_grades(task: str, metric: str) -> bool:
    """Whether values are submitted as whole grades: a regression whose metric compares labels, such as qwk."""
    return task == "regression" and METRICS[metric].needs == "labels"
