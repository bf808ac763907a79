"""Draws the seed of the run, and prints the largest deviations that the tests of this folder measured."""

import secrets
from pathlib import Path

import pytest

from parity import report


def pytest_addoption(parser):
    group = parser.getgroup("parity")
    group.addoption(
        "--parity_seed",
        type=int,
        help="seed of the weights, images and labels that nobody recorded; by default another one in every run",
    )
    group.addoption("--parity_table", type=Path, help="Markdown file that receives the table of all methods")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    """Draws the seed before worker processes start: they get the options of this process."""
    if config.option.parity_seed is None:
        config.option.parity_seed = secrets.randbelow(2**31)


def pytest_report_header(config):
    return f"parity: --parity_seed={config.option.parity_seed}"


@pytest.fixture(scope="session")
def seed(pytestconfig):
    """The seed of this run, which `--parity_seed` repeats."""
    return pytestconfig.option.parity_seed


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


def pytest_terminal_summary(terminalreporter, config):
    reports = [entry for entries in terminalreporter.stats.values() for entry in entries]
    deviations = [
        value for entry in reports for name, value in getattr(entry, "user_properties", ()) if name == report.PROPERTY
    ]
    if not deviations:
        return
    terminalreporter.section("largest deviations")
    for line in report.table(deviations):
        terminalreporter.write_line(line)
    methods = report.of_methods(deviations)
    terminalreporter.section(
        f"methods beside the twin in float64, largest deviations, seed {config.option.parity_seed}"
    )
    for line in report.aligned(methods):
        terminalreporter.write_line(line)
    if config.option.parity_table:
        config.option.parity_table.write_text(report.page(methods, config.option.parity_seed), encoding="utf-8")
