"""A film seen frame by frame is the film seen in one go, and costs as much at its end."""

import gc

import pytest
import torch

from mmavlm.core.errors import ConfigError
from mmavlm.model.live_film import LiveFilm
from mmavlm.run.build import build_backbone
from support import composed
from waits import Waits

FRAMES = 6
GUIDE = "tell me when it rains"
WAYS = {
    "every_frame": ["experiment=duet_movies"],
    "memory": ["experiment=duet_movies_memory", "memory.length=3"],
    "context_content": ["experiment=duet_movies", "temporal=context_content"],
    "video_qformer": ["experiment=duet_movies_memory", "temporal=video_qformer"],
    "average": ["experiment=duet_movies_memory", "temporal=average"],
    "concat": ["experiment=duet_movies_memory", "temporal=concat"],
}


def built(way, *settings):
    torch.manual_seed(0)
    more = ["llm.width=32", "data.num_frames=8", "data.root=."]
    return build_backbone(composed(*WAYS[way], *more, *settings)).eval()


@pytest.fixture(scope="module", params=WAYS)
def model(request):
    return built(request.param)


def film(model, frames=FRAMES):
    size = model.vision.encoder.image_size
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (frames, 3, size, size), dtype=torch.uint8, generator=generator)


def test_tokens_of_a_film_as_it_runs_are_those_of_the_film_in_one_go(model):
    frames, branch = film(model), model.vision
    with torch.no_grad():
        encoded = branch.encode(frames[None])
        watched = branch.watch(encoded, torch.ones(1, FRAMES, dtype=torch.bool), [GUIDE])
        tokens, _, looks = branch.newest_looks(watched)
    live = LiveFilm(branch, GUIDE)
    assert live.latest == looks.latest
    seen = torch.stack([live.see(frame) for frame in frames])
    expected = tokens[0].unflatten(0, (FRAMES, -1))
    torch.testing.assert_close(seen, expected, atol=1e-4, rtol=1e-4)


def held():
    gc.collect()
    return sum(x.numel() for x in gc.get_objects() if type(x) is torch.Tensor)


@pytest.mark.parametrize("way", ["every_frame", "memory", "context_content"])
def test_what_is_held_of_a_film_does_not_grow_and_nothing_waits_for_the_device(way):
    model = built(way)
    live, frames = LiveFilm(model.vision, GUIDE), film(model, 8)
    for frame in frames:
        live.see(frame)
    before = held()
    with Waits() as waits:
        for frame in [*frames] * 3:
            live.see(frame)
    assert waits.found == []
    assert held() <= before


@pytest.mark.parametrize(("settings", "message"), [
    (["temporal.max_frames=4"], "leaves frames out of a long film"),
    (["temporal.memory=${memory}", "memory.length=3"], "leaves frames out of a long film"),
])  # fmt: skip
def test_a_way_that_leaves_out_frames_is_refused(settings, message):
    model = built("every_frame", *settings)
    with pytest.raises(ConfigError, match=message):
        LiveFilm(model.vision, GUIDE)
