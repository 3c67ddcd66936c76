"""https://www.kaggle.com/competitions/contradictory-my-dear-watson: does a premise entail, leave open or contradict a
hypothesis, in 15 languages. 12,120 training and 5,195 test pairs; accuracy.
"""

from pipelines.competitions.competition import Competition, FoldDefaults
from pipelines.competitions.sources.nli import CLASS_NAMES, build_prompt

COMPETITION = Competition(
    name="contradictory_my_dear_watson",
    title="Contradictory, My Dear Watson",
    task="multiclass",
    kaggle_slug="contradictory-my-dear-watson",
    host="kaggle",
    id_column="id",
    input_columns=("premise", "hypothesis"),
    label_columns=("label",),
    class_names=CLASS_NAMES,
    metric="accuracy",
    folds=FoldDefaults(name="stratified", num_folds=5),
    build_prompt=build_prompt,
)
