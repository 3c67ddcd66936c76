"""What tracking costs a training: our buffered tracker beside MLflow's own calls, on one database, in one process.

    python benchmarks/tracking.py                        # 3,000 steps, 4 values every 50 steps
    python benchmarks/tracking.py --log-every 1          # every step
    python benchmarks/tracking.py --run-seconds 380      # and as a share of a training that takes so long

"waits" is what the training loop waits for. "CPU" is all CPU time, also of the sending thread, and what the loop may
lose where no core is idle. `caller_seconds` measures any tracker, for use against a real training.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipelines.tracking.jsonl import open_jsonl_tracker
from pipelines.tracking.mlflow.tracker import MlflowTracker, open_mlflow_tracker, prepare_database, tracking_uri
from pipelines.tracking.tracker import NullTracker, Tracker
from pipelines.workspace import Workspace

LogFunction = Callable[[dict[str, float], int], object]


@dataclass(frozen=True)
class Stream:
    """What a training logs."""

    num_steps: int
    num_metrics: int
    log_every: int

    @property
    def num_values(self) -> int:
        return self.num_steps // self.log_every * self.num_metrics

    def values(self, step: int) -> dict[str, float]:
        return {f"train/metric_{index}": step + index / 10 for index in range(self.num_metrics)}


@dataclass(frozen=True)
class Cost:
    """Seconds of one way of logging a stream."""

    name: str
    waits: float
    end: float
    cpu: float


def caller_seconds(tracker: Tracker, stream: Stream, *, step_seconds: float = 0.0) -> tuple[float, float]:
    """Seconds that a loop waits in `log_metrics`, and in the flush at its end.

    With `step_seconds` the loop works (does not sleep) so long between two steps, so that the sending thread competes
    with it as in a training.
    """
    waits = 0.0
    for step in range(1, stream.num_steps + 1):
        _work(step_seconds)
        if step % stream.log_every == 0:
            started = time.perf_counter()
            tracker.log_metrics(stream.values(step), step)
            waits += time.perf_counter() - started
    started = time.perf_counter()
    tracker.flush()
    return waits, time.perf_counter() - started


def measure_tracker(name: str, tracker: Tracker, stream: Stream, *, step_seconds: float) -> Cost:
    waits, end = caller_seconds(tracker.child("fold0"), stream, step_seconds=step_seconds)
    sending = tracker.sending_seconds if isinstance(tracker, MlflowTracker) else 0.0
    tracker.finish("FINISHED")
    return Cost(name, waits, end, waits + sending)


def measure_mlflow(name: str, log: LogFunction, stream: Stream) -> Cost:
    cpu_started = time.process_time()
    waits = 0.0
    for step in range(stream.log_every, stream.num_steps + 1, stream.log_every):
        started = time.perf_counter()
        log(stream.values(step), step)
        waits += time.perf_counter() - started
    return Cost(name, waits, 0.0, time.process_time() - cpu_started)


def measure_all(workspace: Workspace, stream: Stream, *, step_seconds: float) -> list[Cost]:
    import mlflow

    def open_mlflow() -> Tracker:
        return open_mlflow_tracker(workspace, competition="bench", run_name="ours", run_dir=workspace.runs / "ours")

    def log_one_by_one(values: dict[str, float], step: int) -> None:
        for key, value in values.items():
            mlflow.log_metric(key, value, step=step)

    mlflow.set_tracking_uri(tracking_uri(workspace))
    open_mlflow().finish("FINISHED")  # the first run of a process also pays for connecting
    costs = [
        measure_tracker("no tracker", NullTracker(), stream, step_seconds=step_seconds),
        measure_tracker("jsonl", open_jsonl_tracker(workspace.runs / "j"), stream, step_seconds=step_seconds),
        measure_tracker("mlflow, buffered (ours)", open_mlflow(), stream, step_seconds=step_seconds),
    ]
    mlflow.set_experiment("bench")
    for name, log in {
        "mlflow.log_metrics": lambda values, step: mlflow.log_metrics(values, step=step),
        "mlflow.log_metric": log_one_by_one,
    }.items():
        with mlflow.start_run():
            costs.append(measure_mlflow(name, log, stream))
    return costs


def print_table(costs: list[Cost], stream: Stream, run_seconds: float | None) -> None:
    ours = next(cost for cost in costs if "ours" in cost.name)
    print(f"{stream.num_values} values: {stream.num_steps} steps, {stream.num_metrics} every {stream.log_every} steps")
    share = "  share of run" if run_seconds else ""
    print(f"{'':26}{'loop waits':>12}{'at the end':>12}{'CPU':>10}{'waits, x ours':>15}{share}")
    for cost in costs:
        total = cost.waits + cost.end
        row = f"{cost.name:26}{1e3 * cost.waits:9.2f} ms{1e3 * cost.end:9.1f} ms{1e3 * cost.cpu:7.0f} ms"
        row += f"{total / (ours.waits + ours.end):15.2f}"
        print(row + (f"{max(total, cost.cpu) / run_seconds:14.3%}" if run_seconds else ""))


def _work(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--metrics", type=int, default=4)
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--step-ms", type=float, default=0.0, help="work of the loop between two steps")
    parser.add_argument("--run-seconds", type=float, help="wall time of the training that logs this stream")
    arguments = parser.parse_args()
    stream = Stream(arguments.steps, arguments.metrics, arguments.log_every)
    folder = Path(tempfile.mkdtemp(prefix="podium-tracking-"))
    try:
        workspace = Workspace(folder)
        started = time.perf_counter()
        prepare_database(workspace)
        print(f"creating the database, once (make setup): {time.perf_counter() - started:.1f} s")
        costs = measure_all(workspace, stream, step_seconds=arguments.step_ms / 1e3)
        print_table(costs, stream, arguments.run_seconds)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
