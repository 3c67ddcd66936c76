"""Two submissions held against one another where other library versions may have rounded otherwise."""

import pandas as pd
import pytest
from tiny_competition import write_lines

from pipelines.kernels.rehearsal.rehearse import Difference, describe_difference


@pytest.fixture
def compare(tmp_path):
    """What is said of a submission of a kernel's and one of this machine's, with the models' numbers beside them."""

    def describe(kernel, local, *, scores=((0.5,), (0.5,))):
        paths = []
        for name, lines, column in (("kernel", kernel, scores[0]), ("local", local, scores[1])):
            paths.append(write_lines(tmp_path / name / "submission.csv", *lines))
            frame = pd.DataFrame({"id": [str(row) for row in range(len(column))], "score": column})
            frame.to_parquet(paths[-1].with_name("test_predictions.parquet"))
        return describe_difference(*paths)

    return describe


def test_numbers_within_a_hundred_thousandth_are_small(compare):
    assert compare(("id,p", "1,0.500004"), ("id,p", "1,0.5")) == Difference(True, "numbers differ by at most 4.0e-06")
    assert compare(("id,p", "1,0.50002"), ("id,p", "1,0.5")) == Difference(False, "numbers differ by at most 2.0e-05")
    assert compare(("id,p", "1,0.5", "2,9"), ("id,p", "1,0.5", "2,8")).words == "numbers differ by at most 1.0e+00"


def test_the_same_numbers_written_otherwise(compare):
    found = compare(("id,p", "1,0.50"), ("id,p", "1,0.5"))
    assert found == Difference(True, "the same cells, written otherwise")


def test_a_text_may_differ_where_the_models_scores_tie(compare):
    kernel, local = ("id,name", "1,Paris", "2,Roma"), ("id,name", "1,Paris", "2,Rome")
    near = compare(kernel, local, scores=((-1.0, -2.000003), (-1.0, -2.0)))
    assert near == Difference(True, "1 of 2 texts differ, their scores by at most 3.0e-06")
    far = compare(kernel, local, scores=((-1.0, -2.5), (-1.0, -2.0)))
    assert far == Difference(False, "1 of 2 texts differ, their scores by at most 5.0e-01")


def test_a_text_that_differs_without_a_score_to_excuse_it(compare, tmp_path):
    kernel, local = ("id,name", "1,Roma"), ("id,name", "1,Rome")
    assert compare(kernel, local, scores=((), ())) == Difference(
        False, "1 of 1 texts differ, and no scores say how near"
    )


def test_other_rows_or_columns_are_never_small(compare):
    assert compare(("id,p", "1,0"), ("id,p", "1,0", "2,0")) == Difference(
        False, "1 rows of id, p against 2 rows of id, p"
    )
    assert compare(("id,q", "1,0"), ("id,p", "1,0")) == Difference(False, "1 rows of id, q against 1 rows of id, p")
    assert compare(("id,p", "2,0", "1,0"), ("id,p", "1,0", "2,0")) == Difference(
        False, "the ids stand in another order"
    )


def test_a_number_that_is_missing_on_one_side_is_no_rounding(compare):
    expected = Difference(False, "column p: 1 cells hold no number")
    assert compare(("id,p", "1,"), ("id,p", "1,0.5")) == expected
    assert compare(("id,p", "1,nan"), ("id,p", "1,0.5")) == expected
