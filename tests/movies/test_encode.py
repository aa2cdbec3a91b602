import av
import numpy as np
import pytest

from mmavlm.core.errors import VideoError
from mmavlm.movies import encode
from mmavlm.movies.encode import whole_file, write_video


def pictures(count=12):
    ramp = np.linspace(0, 200, 32, dtype=np.uint8)
    base = np.stack([ramp[None, :].repeat(32, 0)] * 3, axis=-1)
    return [base + np.uint8(4 * i) for i in range(count)]


def test_video_decodes_to_nearly_the_frames_that_went_in(tmp_path):
    write_video(pictures(), tmp_path / "a.mp4", fps=10)
    with av.open(str(tmp_path / "a.mp4")) as file:
        stream = file.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(stream)]
        assert stream.codec_context.name == "h264"
        assert stream.average_rate == 10
    assert len(frames) == 12
    assert np.abs(np.stack(frames).astype(int) - np.stack(pictures())).mean() < 3.0


def test_a_writer_that_fails_leaves_nothing_behind(tmp_path):
    def broken():
        yield from pictures(3)
        raise RuntimeError("out of film")

    with pytest.raises(RuntimeError, match="out of film"):
        write_video(broken(), tmp_path / "a.mp4", fps=10)
    assert list(tmp_path.iterdir()) == []


def test_whole_file_replaces_the_old_one_only_at_the_end(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with whole_file(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_no_frames_is_an_error(tmp_path):
    with pytest.raises(VideoError, match=r"a\.mp4: there are no frames to encode"):
        write_video([], tmp_path / "a.mp4", fps=10)


def test_a_missing_encoder_is_named_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(encode, "CODEC", "libx999")
    with pytest.raises(VideoError, match="has no libx999 encoder; install PyAV's own wheel"):
        write_video(pictures(), tmp_path / "a.mp4", fps=10)
