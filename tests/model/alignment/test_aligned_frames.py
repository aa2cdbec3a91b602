import pytest

from mmavlm.core.errors import ConfigError
from mmavlm.model.alignment import AllFrames, FirstK, FirstLast, FirstMiddleLast


@pytest.mark.parametrize(
    ("frames", "of_ten", "of_one", "uses_last"),
    [
        (FirstK(), 3, 1, False),
        (FirstK(2), 2, 1, False),
        (FirstLast(), 1, 1, True),
        (FirstMiddleLast(), 1, 1, True),
        (AllFrames(), 10, 1, False),
    ],
)
def test_aligned_frames_say_what_has_to_be_run(frames, of_ten, of_one, uses_last):
    assert frames.prefix(10) == of_ten
    assert frames.prefix(1) == of_one
    assert frames.uses_last is uses_last


def test_aligning_no_frame_is_refused():
    with pytest.raises(ConfigError, match=r"alignment.frames.k is 0; give the number .* 1 or more"):
        FirstK(0)
