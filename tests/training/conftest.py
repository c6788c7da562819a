"""The data set that the tests of training share."""

import pytest

from pruning_core.data.loading import load_data


@pytest.fixture(scope="session")
def digits():
    return load_data("digits")
