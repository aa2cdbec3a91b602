import ast
import sys
from importlib import import_module
from pathlib import Path

import pytest

import mmavlm
from mmavlm.core.lazy import lazy_names

SOURCES = Path(mmavlm.__file__).parent
LAZY = [
    ".".join(path.relative_to(SOURCES.parent).parent.parts)
    for path in sorted(SOURCES.rglob("__init__.py"))
    if "lazy_names" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", LAZY)
def test_a_package_gives_every_name_it_lists(name):
    package = import_module(name)
    for listed in package.__all__:
        assert listed in dir(package)
        assert getattr(package, listed) is not None


@pytest.mark.parametrize("name", LAZY)
def test_no_name_is_that_of_a_module_which_would_take_its_place(name):
    package = import_module(name)
    folder = Path(package.__file__).parent
    assert not {path.stem for path in folder.iterdir()} & set(package.__all__)


@pytest.mark.parametrize("name", LAZY)
def test_names_that_are_imported_for_type_checkers_are_those_that_are_listed(name):
    package = import_module(name)
    tree = ast.parse(Path(package.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {alias.name for node in block.body for alias in node.names}
    assert imported == set(package.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error_as_of_any_module():
    package = import_module("mmavlm.metrics")
    with pytest.raises(AttributeError, match=r"'mmavlm.metrics' has no attribute 'Acuracy'"):
        package.Acuracy  # noqa: B018
    with pytest.raises(ImportError):
        exec("from mmavlm.metrics import Acuracy")


def test_a_name_is_found_once(monkeypatch):
    package = import_module("mmavlm.metrics")
    monkeypatch.delitem(vars(package), "Prediction", raising=False)
    found = lazy_names("mmavlm.metrics")[0]("Prediction")
    assert vars(sys.modules["mmavlm.metrics"])["Prediction"] is found
