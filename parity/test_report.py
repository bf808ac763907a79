"""The table of methods tells what was compared from what was not."""

from parity import cases, report

SMALL = {"eval": 1e-12, "train": 3e-12, "buffers": 2e-12, "losses": 1e-15, "step losses": 1e-14, "steps": 1e-9}


def test_a_method_that_was_not_compared_is_not_run():
    first, second = cases.CASES[0].row, cases.CASES[1].row
    noted = [(first, quantity, x) for quantity, x in SMALL.items()]
    noted += [(first, "gradients", 1e-11), (first, "metrics", 0.0), (second, "eval", 1e-12)]
    heading, *rows = report.of_methods(noted)
    assert heading == ["method, backbone", "outputs", "losses", "gradients", "steps", "metrics"]
    assert [row[0] for row in rows] == [case.row for case in cases.CASES]
    assert rows[0][1:] == ["3.0e-12", "1.0e-15", "1.0e-11", "1.0e-09", "0.0e+00"]
    # Of the second network one of three kinds of outputs was compared: that is not all.
    assert all(row[1:] == [report.NOT_RUN] * 5 for row in rows[1:])


def test_the_table_as_a_page():
    text = report.page(report.of_methods([]), 3)
    assert "--parity_seed 3 " in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[0] == "| method, backbone | outputs | losses | gradients | steps | metrics |"
    assert lines[1] == "|---|---:|---:|---:|---:|---:|"
    assert lines[2] == f"| {cases.CASES[0].row} | NOT RUN | NOT RUN | NOT RUN | NOT RUN | NOT RUN |"
    assert len(lines) == 2 + len(cases.CASES)
