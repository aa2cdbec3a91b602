from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.video.frame import PictureType

from mmavlm.core.errors import VideoError
from mmavlm.data.containers import opened
from mmavlm.data.cursor import REORDERED, Cursor, DamageFoundError, Shortcut, undamaged
from mmavlm.data.probe import probe
from mmavlm.data.video import shown_pictures


def moved(path, wanted):
    """The cursor of a file after it was at each of the wanted frames."""
    info = probe(path)
    pts = info.frame_pts[wanted].tolist()
    with opened(path) as (container, stream):
        cursor = Cursor(container, stream, info, pts)
        assert [cursor.move_to(at)[0] for at in pts] == pts
    return cursor


def test_h264_films_are_decoded_by_the_shortcut_to_their_end(make_clip):
    assert moved(make_clip(frames=60), [0, 5, 13, 30, 31, 59]).shortcut is not None


def test_interlaced_films_and_other_codecs_are_decoded_whole(make_clip):
    interlaced = make_clip(frames=60, **{"x264-params": "interlaced=1"})
    assert moved(interlaced, [5, 30]).shortcut is None
    assert moved(make_clip("clip.avi", 60, ticks=1), [5, 30]).shortcut is None


def test_the_shortcut_leaves_out_what_no_wanted_frame_needs(make_clip):
    path = make_clip(frames=60, gop=60)
    with av.open(str(path)) as file:
        kinds = [PictureType(frame.pict_type).name for frame in file.decode(video=0)]
    wanted = [i for i, kind in enumerate(kinds) if kind == "P"][-2:]
    info = probe(path)
    with opened(path) as (container, stream):
        shortcut = Shortcut(container, stream, info, info.frame_pts[wanted].tolist())
        decoded = [frame.pts for frame in shortcut.frames]
    assert set(info.frame_pts[wanted]) < set(decoded)
    assert len(decoded) < 0.75 * wanted[-1]


def test_the_shortcut_stops_behind_the_last_wanted_frame(make_clip):
    info = probe(make_clip(frames=60, gop=60))
    with opened(info.path) as (container, stream):
        shortcut = Shortcut(container, stream, info, info.frame_pts[[20]].tolist())
        decoded = [frame.pts for frame in shortcut.frames]
    # what a picture refers to may be shown after it, but no more than B-frames lie between
    assert np.searchsorted(info.frame_pts, decoded[-1]) <= 20 + 4


def test_a_damaged_frame_is_named_where_it_is_wanted(make_clip):
    path = make_clip(frames=60, gop=12)
    info = probe(path)
    with av.open(str(path)) as file:
        small = min((p for p in file.demux(video=0) if p.size), key=lambda packet: packet.size)
    content = bytearray(path.read_bytes())
    content[small.pos + 4 : small.pos + small.size] = bytes(small.size - 4)
    path.write_bytes(content)
    at = int(np.searchsorted(info.frame_pts, small.pts))
    with pytest.raises(VideoError, match=r"clip\.mp4 \(h264\) breaks off after [0-9.]+ s of"):
        list(shown_pictures(info, info.times_s[[2, at, 59]].tolist()))


def frames(*numbers, damaged=()):
    return [SimpleNamespace(pts=n, is_corrupt=n in damaged) for n in numbers]


def stream(reorders):
    return SimpleNamespace(codec_context=SimpleNamespace(name="h264", has_b_frames=reorders))


def test_a_frame_is_held_back_until_those_it_may_refer_to_are_known_to_be_whole():
    coming = undamaged(frames(*range(9), damaged=[REORDERED + 1]), stream(reorders=True))
    assert next(coming).pts == 0
    with pytest.raises(DamageFoundError):
        next(coming)


@pytest.mark.parametrize("reorders", [True, False])
def test_all_frames_come_where_none_is_damaged(reorders):
    assert [f.pts for f in undamaged(frames(*range(9)), stream(reorders))] == list(range(9))


def test_without_reordering_no_frame_waits_for_the_next():
    assert next(undamaged(frames(0, 1, damaged=[1]), stream(reorders=False))).pts == 0


def test_frames_that_come_late_are_a_sign_of_damage():
    with pytest.raises(DamageFoundError):
        list(undamaged(frames(0, 2, 1), stream(reorders=True)))
