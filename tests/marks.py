"""Marks of single cases, of the parity suite's too."""

from functools import partial

import pytest

slow = partial(pytest.param, marks=pytest.mark.slow)
