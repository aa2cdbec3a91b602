import pytest
import torch
from models import asking, seen

from mmavlm.core.errors import ConfigError
from mmavlm.core.generation import Generation
from mmavlm.core.interfaces import LanguageModel
from mmavlm.model.llm import tiny_llm


def test_tiny_llm_is_a_language_model():
    assert isinstance(tiny_llm(), LanguageModel)
    assert tiny_llm(width=32).width == 32


def test_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = tiny_llm(width=32, seed=3, trainable=False).state_dict()
    torch.manual_seed(2)
    second = tiny_llm(width=32, seed=3, trainable=False).state_dict()
    other = tiny_llm(width=32, seed=4, trainable=False).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(
        first["model.model.embed_tokens.weight"], other["model.model.embed_tokens.weight"]
    )


def test_building_leaves_the_global_generator_as_it_was():
    before = torch.get_rng_state()
    tiny_llm(width=32)
    assert torch.equal(before, torch.get_rng_state())


def test_a_frozen_one_has_nothing_to_train_and_stays_in_eval_mode():
    llm = tiny_llm(width=32, trainable=False).train()
    assert not any(p.requires_grad for p in llm.parameters())
    assert not any(module.training for module in llm.modules())


def test_it_learns_to_tell_videos_apart():
    torch.manual_seed(0)
    llm = tiny_llm(width=32, layers=1)
    video = torch.randn(4, 2, 32)
    prompts = ["what is the genre of the movie?"] * 4
    targets = ["comedy", "ex-boyfriend ex-girlfriend", "romance", "action"]
    optimizer = torch.optim.AdamW(llm.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        llm.loss(asking(prompts, targets), seen(video)).backward()
        optimizer.step()
    llm.eval()
    answers = llm.generate(
        asking(prompts), seen(video), Generation(num_beams=2, num_answers=1, max_new_tokens=8)
    )
    assert [row[0].text for row in answers] == targets
    assert llm.rank(asking(prompts), seen(video), targets).argmax(dim=1).tolist() == [0, 1, 2, 3]


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ConfigError, match=r"llm.width is 36 with llm.heads 4; .* multiple of 8"):
        tiny_llm(width=36, heads=4)
