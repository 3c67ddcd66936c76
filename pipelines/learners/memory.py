"""A run within a memory budget: the plan that was chosen, in run.json, on the tracker, on the screen, drawn."""

from components.memory.budget import BudgetKeeper, MemoryPlanner, PlannedModel, free_bytes
from components.memory.byte_sizes import format_closely, parse_bytes
from components.memory.layer_costs import Batch
from components.memory.measuring import tensor_bytes
from components.memory.planner import PlanDecision
from components.training.loop import TrainingLoop
from pipelines.learners.figures import draw_frontier
from pipelines.learners.learner import FoldJob
from pipelines.runs.run import Run


def keep_budget(loop: TrainingLoop, budget: str, run: Run, job: FoldJob) -> BudgetKeeper:
    """What chooses `loop`'s activation plan for `budget`, an amount of memory or `auto`, and records the choice."""
    from accelerate.utils import broadcast_object_list

    accelerator, model = loop.accelerator, loop.plain_model
    num_processes = accelerator.num_processes
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    held = tensor_bytes(list(loop.average.averages.values())) if loop.average else 0
    if num_processes > 1:
        held += tensor_bytes(weights)  # DDP's buckets of gradients

    def forward_backward(batch: Batch) -> None:
        with accelerator.autocast():
            loss = model(**batch).loss
        loss.backward()

    def record(decision: PlanDecision) -> None:
        if accelerator.is_main_process:
            _record(decision, run, job)

    planner = MemoryPlanner(
        planned=PlannedModel(model, model.layer_stacks),  # type: ignore[arg-type]
        optimizer=loop.plain_optimizer,
        forward_backward=forward_backward,
        batch=loop.largest_batch(),
        budget=free_bytes(accelerator.device, num_processes) if budget == "auto" else parse_bytes(budget),
        also_held=held,
        has_gradients=loop.settings.gradient_accumulation_steps > 1,
    )
    return BudgetKeeper(planner, on_decision=record, agree=lambda plan: str(broadcast_object_list([plan])[0]))


def _record(decision: PlanDecision, run: Run, job: FoldJob) -> None:
    observer = job.observer
    forecast, measured = format_closely(decision.forecast), format_closely(decision.measured)
    observer.screen.say(
        f"{job.name}  memory budget {format_closely(decision.budget)}: {decision.plan}; forecast {forecast}, "
        f"measured {measured}"
    )
    figure = draw_frontier(decision, run.figures / f"{job.name}_memory.png")
    observer.tracker.log_artifact(figure, "figures")
    observer.tracker.log_tags({"memory.plan": decision.plan, "memory.forecast": forecast, "memory.measured": measured})
    if run.record_file.exists():
        former = run.read_record().memory_plans or {}
        run.update_record(memory_plans={**former, job.name: decision.as_record()})
