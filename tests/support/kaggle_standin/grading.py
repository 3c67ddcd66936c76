"""Scores of a submission against a hidden file of answers, as a host's grader gives them; the stand-in's own code."""

import csv
import io


class Ungradable(Exception):
    """What Kaggle writes beside a submission that it could not score."""


def grade(answers: bytes, submission: bytes) -> tuple[str, str]:
    """The public and private share of right answers; `answers` has the columns id, <label>, Usage."""
    truth, rows = _read(answers), _read(submission)
    columns = [name for name in truth[0] if name != "Usage"]
    if not rows or list(rows[0]) != columns:
        found = ",".join(rows[0]) if rows else "nothing"
        raise Ungradable(f"Submission Scoring Error: expected the columns {','.join(columns)}, found {found}")
    given = {row[columns[0]]: row[columns[1]] for row in rows}
    if len(rows) != len(truth) or set(given) != {row[columns[0]] for row in truth}:
        raise Ungradable(f"Submission Scoring Error: it must have {len(truth)} rows, the ids of the sample")
    shares = [
        [given[row[columns[0]]] == row[columns[1]] for row in truth if row["Usage"] == usage]
        for usage in ("Public", "Private")
    ]
    public, private = (f"{sum(right) / len(right):.5f}" if right else "" for right in shares)
    return public, private


def _read(content: bytes) -> list[dict]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8"))))
