"""The site builds without warnings, links nowhere that is nothing, and says every setting."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from mmavlm.core.config_files import choices, config_dir

ROOT = Path(__file__).parents[1]
YAML = re.compile(r"```yaml\n(.*?)```", re.DOTALL)
CODE = re.compile(r'```python title="(\w+)\.py"\n(.*?)```', re.DOTALL)


@pytest.fixture(scope="module")
def building():
    spec = importlib.util.spec_from_file_location("build_site", ROOT / "scripts" / "build_site.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(building, tmp_path_factory):
    pytest.importorskip("zensical", reason="the site needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    building.build(building.write_pages(folder / "pages"), folder / "site")
    return folder / "site"


def test_every_choice_of_every_group_has_its_settings_on_the_site(site):
    for group in (path.name for path in config_dir().iterdir() if path.is_dir()):
        if choices(group):
            page = (site / "settings" / group / "index.html").read_text()
            assert [c for c in choices(group) if f"{group}={c}" not in page] == []


def test_the_site_loads_nothing_from_elsewhere(site):
    pattern = r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?:https?:)?//[^"]+"'
    pages = [page.read_text() for page in site.rglob("*.html")]
    assert [found for page in pages for found in re.findall(pattern, page)] == []


@pytest.mark.parametrize("link", ["nothing.md", "index.md#nothing", "../nothing.svg"])
def test_a_link_to_nothing_stops_the_building(building, tmp_path, link):
    pytest.importorskip("zensical", reason="the site needs the extra docs")
    config = building.write_pages(tmp_path)
    told = yaml.safe_load(config.read_text()) | {"nav": [{"Start": "index.md"}]}
    config.write_text(yaml.safe_dump(told))
    for page in (tmp_path / "docs").rglob("*.md"):
        page.unlink()
    (tmp_path / "docs" / "index.md").write_text(f"[a link]({link})\n![a picture]({link})\n")
    with pytest.raises(SystemExit, match="nothing"):
        building.build(config, tmp_path / "built")
    assert not (tmp_path / "built").exists()


def test_comments_of_settings_stay_what_they_say(building):
    assert building.escaped("a|b, <c> and `d|e`") == r"a\|b, \<c\> and `d\|e`"


def test_the_part_that_the_docs_add_passes_the_test_they_print(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "add_a_part.md").read_text()
    blocks = dict(CODE.findall(page))
    package = tmp_path / "my_memory"
    package.mkdir()
    (package / "first_and_last.py").write_text(blocks["first_and_last"])
    monkeypatch.syspath_prepend(tmp_path)
    tests = {}
    exec(blocks["test_first_and_last"], tests)
    torch.manual_seed(0)
    for name in [name for name in tests if name.startswith("test_")]:
        tests[name]()
    conf = tmp_path / "my_conf" / "memory"
    conf.mkdir(parents=True)
    (conf / "first_and_last.yaml").write_text(YAML.search(page)[1])
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        own = f"hydra.searchpath=[file://{conf.parent}]"
        config = compose("train", [own, "memory=first_and_last", "memory.length=4"])
    assert type(instantiate(config.memory)).__module__ == "my_memory.first_and_last"
