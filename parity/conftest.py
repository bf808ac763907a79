"""Prints the largest deviations that the tests of this folder measured."""

from parity import report


def pytest_terminal_summary(terminalreporter):
    if lines := report.table():
        terminalreporter.section("largest deviations")
        for line in lines:
            terminalreporter.write_line(line)
