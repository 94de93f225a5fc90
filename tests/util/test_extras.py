import json
import sys

import pytest

from diffusion_policy.util.errors import UserError
from diffusion_policy.util.extras import import_extra


def test_a_module_that_is_there_is_returned():
    assert import_extra("json", "extra", "reading") is json


@pytest.mark.parametrize("module", ["absent_package", "absent_package.part"])
def test_an_absent_package_is_told_with_its_extra(module):
    told = r"reading HDF5 needs absent_package, .*pip install 'diffusion_policy\[hdf5\]'"
    with pytest.raises(UserError, match=told):
        import_extra(module, "hdf5", "reading HDF5")


def test_a_package_that_is_broken_is_not_called_absent(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import something_that_is_absent")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="something_that_is_absent"):
        import_extra("broken_package", "hdf5", "reading HDF5")
    sys.modules.pop("broken_package", None)
