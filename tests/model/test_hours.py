"""Two hours of film with subtitles, at one frame a second, through a small model."""

import subprocess
import sys
from pathlib import Path

import pytest

FRAMES = 7200
WATCH = """
import resource
import sys

import torch

from mmavlm.core.batch import Batch
from mmavlm.core.conversation import Conversation
from mmavlm.core.interfaces import Generation
from mmavlm.core.medium import Medium
from mmavlm.data.subtitles import Subtitle, with_lines
from support import tiny_backbone

FRAMES = 7200
backbone = tiny_backbone(
    "temporal=context_content", "vision.max_num_frames=7200", *sys.argv[1:],
).eval()
encoder = backbone.vision.encoder
film = Medium(medium_id="a", source="a.mp4")
said = [Subtitle(k + 0.2, k + 0.9, "the man sits") for k in range(-1, FRAMES + 1, 5)]
times_s = [float(k) for k in range(FRAMES)]
talk = with_lines(Conversation.question(film, "why?"), [said], [times_s])
features = torch.randn(1, FRAMES, encoder.num_tokens, encoder.width)
batch = Batch(
    conversations=[talk], media_rows=[(0,)], features=features,
    frame_mask=torch.ones(1, FRAMES, dtype=torch.bool), timestamps_s=torch.tensor([times_s]),
    item_id=["a"], task=["open"],
)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with torch.no_grad():
    media = backbone.media_tokens(batch)
    row = backbone.llm.rendering.turns(talk.asked.turns)
    asked = backbone.llm.asked([row], media, [4])
    answer = backbone.generate(batch, Generation(num_beams=1, max_new_tokens=4))[0][0]
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
shown = sum(piece.stop - piece.start for piece in asked.pieces[0])
print(len(row.media_at), len(row.ids), shown, media.tokens.shape[1], grown // 1024)
"""


def watched(*settings):
    """Places with frames, ids of text, tokens of the film that are read, all, and MiB."""
    tests = Path(__file__).parents[1]
    command = [sys.executable, "-c", WATCH, *settings]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tests, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [int(number) for number in done.stdout.split()[-5:]]


@pytest.mark.slow
def test_every_frame_of_two_hours_is_read_between_what_is_said():
    places, ids, shown, tokens, mib = watched()
    assert places == FRAMES // 5
    assert ids > FRAMES // 5
    assert shown == tokens == 2 * FRAMES
    assert mib < 3000


@pytest.mark.slow
def test_a_memory_keeps_two_hours_in_bounded_tokens():
    *_, shown, tokens, mib = watched("temporal.memory=${memory}", "memory.length=60")
    assert shown == tokens <= 2 * 61
    assert mib < 3000
