import pytest
import torch
from visitors import Visitor, serving

import mmavlm
from mmavlm.serve.limits import Limits

UNTRAINED = {
    "experiment": "zero_shot_own_videos", "model": "tiny", "init.allow_random": True,
    "data.num_frames": 4, "stage.min_new_tokens": 4, "stage.max_new_tokens": 5,
}  # fmt: skip
DUET = {"experiment": "duet_movies", "init.allow_random": True, "llm.width": 32}


@pytest.fixture(scope="session")
def model():
    torch.manual_seed(0)
    return mmavlm.load(**UNTRAINED)


@pytest.fixture(scope="session")
def duet():
    torch.manual_seed(0)
    return mmavlm.load(**DUET)


@pytest.fixture(scope="module")
def server(model, duet):
    with serving([model, duet], Limits(max_mb=0.5, max_minutes=0.5, waiting=2)) as told:
        yield told


@pytest.fixture
def visitor(server):
    visitor = Visitor(server[0])
    yield visitor
    visitor.client.delete("/api/visits")
