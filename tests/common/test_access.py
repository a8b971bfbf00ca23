"""What is looked at before any job runs."""

import os

import pytest

from common.access import check_folder
from common.files import UserError


@pytest.mark.parametrize("closed", ["", ".snakemake", ".snakemake/metadata", "results"])
def test_a_folder_of_another_user_is_refused(tmp_path, monkeypatch, closed):
    check_folder(tmp_path)
    (tmp_path / ".snakemake/metadata").mkdir(parents=True)
    (tmp_path / "results").mkdir()
    check_folder(tmp_path)
    # As root everything may be written.
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / closed)
    with pytest.raises(UserError, match=rf"^{tmp_path / closed}: found a folder that you may not write in"):
        check_folder(tmp_path)
