"""What each test of the models needs."""

import pytest


@pytest.fixture(autouse=True)
def _keep_in_a_folder_of_the_test(tmp_path, monkeypatch):
    """Quantised weights are kept there, and not among the user's results."""
    monkeypatch.setattr("llm.kept.KEPT", tmp_path / "quantised")
