"""What README.md and docs/python.md say in Python runs as it stands, on a small model."""

import re
from pathlib import Path

import pytest

from mmavlm import export
from mmavlm.run import build_backbone
from mmavlm.weights.weight_files import write_weights
from support import composed

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
DUET = ["experiment=duet_movies", "llm.width=32"]


@pytest.fixture
def here(run, trained, films, tmp_path):
    """A folder with the models and films that the pages name; the tests run in it."""
    best = trained / "checkpoints/best.ckpt"
    assert run(export, f"checkpoint={best}", "to=my_model") == 0
    write_weights(
        build_backbone(composed(*DUET, "data.root=.")).state_dict(), Path("w.safetensors")
    )
    assert run(export, *DUET, "model=tiny", "init.weights=w.safetensors", "to=my_duet") == 0
    Path("outputs").mkdir()
    Path("outputs/genre").symlink_to(trained)
    Path("outputs/duet").symlink_to(tmp_path / "my_duet")
    clips = sorted((films / "lvu/videos").glob("*.mp4"))
    for name, clip in zip(("film.mp4", "a.mp4", "b.mp4"), clips, strict=False):
        Path(name).symlink_to(clip)
    return tmp_path


@pytest.mark.parametrize("page", ["README.md", "docs/python.md", "docs/live.md"])
def test_what_a_page_says_in_python_runs_as_it_stands(page, here, capsys):
    told = {"pictures": ()}
    for block in BLOCK.findall((ROOT / page).read_text()):
        if "frame_tokens" not in block:  # which are somebody's own
            exec(block.replace('"cuda"', '"cpu"'), told)
    if page != "docs/live.md":  # where an untrained model need not say anything
        assert capsys.readouterr().out.strip()
        assert [path.name for path in here.glob("why/*.png")] == ["film_explained.png"]
