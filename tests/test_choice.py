import pytest

from src.errors import SettingError
from src.run import choice


@pytest.mark.parametrize("wrong", [5, ["a.p"], True])
def test_a_setting_that_is_no_path_is_refused(wrong, tmp_path):
    choice.check_paths(csv=None, load_file="a.p", io_path=tmp_path)
    with pytest.raises(SettingError, match=r"`args.csv` must be the path of a file or folder, got"):
        choice.check_paths(load_file=None, csv=wrong)
