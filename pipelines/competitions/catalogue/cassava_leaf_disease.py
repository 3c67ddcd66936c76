"""https://www.kaggle.com/competitions/cassava-leaf-disease-classification: 21,397 photographs of cassava leaves, four
diseases and healthy; accuracy. The test rows are those of the sample submission, which a kernel sees in full.
"""

from pipelines.competitions.competition import Competition, FoldDefaults, ImagePlaces

COMPETITION = Competition(
    name="cassava_leaf_disease",
    title="Cassava Leaf Disease Classification",
    task="multiclass",
    kaggle_slug="cassava-leaf-disease-classification",
    host="kaggle",
    id_column="image_id",
    input_columns=("image_id",),
    label_columns=("label",),
    class_names=("0", "1", "2", "3", "4"),
    images=ImagePlaces("image_id", train="train_images/{}", test="test_images/{}"),
    test_role="sample",
    metric="accuracy",
    folds=FoldDefaults(name="stratified", num_folds=5),
)
