"""Fixtures that several folders of tests share."""

import json
import shutil
import sys
from fractions import Fraction
from pathlib import Path

import av
import pytest
from hypothesis import settings

from clips import clip_picture
from mmavlm.movies import ensure_movie_set
from public_sets import write_public_sets

# How long an example takes says more about the machine than about the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
REAL_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def state_folder(tmp_path_factory):
    """A state folder of the tests' own, in which the key lies that seals their checkpoints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture
def real_data():
    if not REAL_DATA.is_dir():
        pytest.skip("the real annotation files and films are not beside the project")
    return REAL_DATA


@pytest.fixture
def make_clip(tmp_path):
    """A function that encodes a clip; `pts` are in `ticks` of a frame's time."""

    def make(
        name="clip.mp4", frames=30, *, fps=10, gop=12, ticks=100, pts=None, codec=None, **options
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        codec = codec or ("mpeg4" if path.suffix == ".avi" else "libx264")
        faststart = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
        with av.open(str(path), "w", options=faststart) as file:
            stream = file.add_stream(codec, rate=fps)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.codec_context.gop_size = gop
            stream.codec_context.max_b_frames = 3
            stream.codec_context.time_base = Fraction(1, ticks * fps)
            stream.options = {"threads": "1", "sc_threshold": "0", **options}
            for number in range(frames):
                frame = av.VideoFrame.from_ndarray(clip_picture(name, number), format="rgb24")
                frame.pts = ticks * number if pts is None else pts[number]
                frame.time_base = Fraction(1, ticks * fps)
                file.mux(stream.encode(frame))
            file.mux(stream.encode())
        return path

    return make


@pytest.fixture(scope="session")
def films(tmp_path_factory):
    """Twelve films with annotations of all kinds: the public sets', and a user's own rows."""
    root = ensure_movie_set(tmp_path_factory.mktemp("films"), clips=12, duration_s=4)
    for split in ("train", "val", "test"):
        rows = map(json.loads, (root / "captions" / f"{split}.jsonl").read_text().splitlines())
        lines = [
            json.dumps({"video": r["video"], "prompt": "what happens?", "answer": r["caption"]})
            for r in rows
        ]
        (root / f"{split}.jsonl").write_text("\n".join(lines))
    lvu = root / "lvu"
    names = {split: list(json.loads((lvu / f"annotation/{split}.json").read_text()))
             for split in ("train", "val", "test")}  # fmt: skip
    write_public_sets(root, names, frames=40)
    for folder in ("breakfast", "coin", "msvd", "msrvtt", "activitynet", "youcook2"):
        (root / folder / "videos").symlink_to(lvu / "videos")
    return root


@pytest.fixture(scope="session")
def trained(films, tmp_path_factory):
    """A folder of a finished stage-2 run."""
    # Imported here, since tests of one room alone need not wait for it.
    from mmavlm import train
    from support import SMALL

    folder = tmp_path_factory.mktemp("trained")
    argv = sys.argv
    sys.argv = ["train", "experiment=lvu_genre", *SMALL, f"data.root={films}",
                f"hydra.run.dir={folder}"]  # fmt: skip
    try:
        train.main()
    finally:
        sys.argv = argv
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command's main with arguments in a fresh folder; gives its exit code."""
    monkeypatch.chdir(tmp_path)

    def run(module, *arguments):
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
        try:
            module.main()
        except SystemExit as stop:
            return stop.code
        return 0

    return run


@pytest.fixture(scope="module")
def browser():
    """The browser that pages are looked at in."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no browser is installed")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
