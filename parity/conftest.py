"""Prints the largest deviations that the tests of this folder measured."""

import pytest

from parity import report


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """Deviations travel with the test's report, so that they arrive from other processes too."""
    item.user_properties.extend(report.taken())
    yield


@pytest.fixture(scope="module")
def torch():
    """Single-threaded: two processes share the tests, and threads that wait for each other are slow."""
    torch = pytest.importorskip("torch", reason="the twin needs torch", exc_type=ModuleNotFoundError)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(threads)


def pytest_terminal_summary(terminalreporter):
    reports = [entry for entries in terminalreporter.stats.values() for entry in entries]
    lines = report.table(
        value for entry in reports for name, value in getattr(entry, "user_properties", ()) if name == report.PROPERTY
    )
    if lines:
        terminalreporter.section("largest deviations")
        for line in lines:
            terminalreporter.write_line(line)
