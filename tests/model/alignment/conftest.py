import pytest
import torch
from bag_of_words import BagOfWords


@pytest.fixture
def text_encoder():
    torch.manual_seed(0)
    return BagOfWords()
