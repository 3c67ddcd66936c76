"""https://www.kaggle.com/competitions/contradictory-my-dear-watson: does a premise entail, leave open or contradict a
hypothesis, in 15 languages. 12,120 training and 5,195 test pairs; accuracy.
"""

from collections.abc import Mapping

from pipelines.competitions.competition import Competition, FoldDefaults


def build_prompt(row: Mapping[str, str]) -> str:
    """The prompt that mT5 was fine-tuned on for XNLI (Xue et al. 2021, and T5's MNLI)."""
    return f"xnli: premise: {row['premise']} hypothesis: {row['hypothesis']}"


COMPETITION = Competition(
    name="contradictory_my_dear_watson",
    title="Contradictory, My Dear Watson",
    task="multiclass",
    kaggle_slug="contradictory-my-dear-watson",
    host="kaggle",
    id_column="id",
    input_columns=("premise", "hypothesis"),
    label_columns=("label",),
    # 0 entailment, 1 neutral, 2 contradiction
    class_names=("0", "1", "2"),
    metric="accuracy",
    folds=FoldDefaults(name="stratified", num_folds=5),
    build_prompt=build_prompt,
)
