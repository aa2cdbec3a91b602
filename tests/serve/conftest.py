import pytest
import torch
from visitors import UNTRAINED, Visitor, serving

import mmavlm
from mmavlm.serve.limits import Limits

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
