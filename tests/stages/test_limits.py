"""Tables that are too short are told when a run starts, or else with the item."""

import logging
from types import SimpleNamespace

import lightning as L
import pytest
from hydra.errors import InstantiationException
from torch.utils.data import DataLoader
from transformers import GPT2Config, GPT2LMHeadModel

from mmavlm.callbacks import ModelOverview
from mmavlm.core.errors import ConfigError
from mmavlm.core.generation import Generation
from mmavlm.model.llm import PromptedLanguageModel
from mmavlm.model.text import load_tokenizer
from mmavlm.model.token_tables import TooLongError
from mmavlm.stages import FineTune, OptimizerRecipe, SemanticAlignment
from mmavlm.stages.answering import answer_batch
from support import asking, random_batch, tiny_backbone


def backbone(positions, **settings):
    """A model whose LLM has so many positions; its video takes eight of them."""
    words = load_tokenizer(None)
    config = GPT2Config(
        vocab_size=len(words), n_embd=64, n_layer=1, n_head=2, n_positions=positions
    )
    model = tiny_backbone("alignment=none")
    llm = PromptedLanguageModel(GPT2LMHeadModel(config), words, **settings)
    model.llm = llm.requires_grad_(False)
    return model


SHORT = {"max_prompt_tokens": 20, "max_answer_tokens": 10}


def fine_tune(model, **settings):
    return FineTune(model, OptimizerRecipe(), tasks=["open"], **settings)


def trainer(folder, **settings):
    return L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_steps=1,
                     enable_progress_bar=False, enable_model_summary=False,
                     default_root_dir=folder, **settings)  # fmt: skip


def test_a_stage_whose_texts_may_be_too_long_is_refused_before_it_runs():
    assert "of 40 positions" in fine_tune(backbone(40, **SHORT), max_new_tokens=10).lengths
    with pytest.raises(ConfigError, match=r"40 positions.*8 of the video \+ 20 of the prompt"):
        fine_tune(backbone(40, **SHORT), max_new_tokens=30)


def test_the_overview_tells_how_many_positions_are_taken(tmp_path, capsys):
    stage = fine_tune(backbone(40, **SHORT), max_new_tokens=10)
    loader = DataLoader([random_batch()], batch_size=None)
    trainer(tmp_path, callbacks=[ModelOverview()], limit_val_batches=0).fit(stage, loader)
    assert "language model: at most 37 tokens" in capsys.readouterr().out


def test_a_row_that_is_too_long_is_named_by_its_item_in_loss_and_answers():
    model, batch = backbone(20), random_batch(targets=("comedy", "movie " * 20))
    with pytest.raises(TooLongError, match=r"item i1: row 1 .* 20 positions; lower llm.max"):
        model(batch)
    media = model.media_tokens(batch)
    batch = asking(batch, prompt=[batch.prompt[0], "movie " * 20])
    short = Generation(num_beams=1, max_new_tokens=2)
    for classes, by in (({}, "generate"), ({"open": ["comedy"]}, "rank")):
        with pytest.raises(TooLongError, match="item i1: row"):
            answer_batch(model.llm, media, batch, classes, by, short)
    for ask in (
        lambda: model.generate(batch, short),
        lambda: model.rank(batch, ["a"]),
    ):
        with pytest.raises(TooLongError, match="item i1: row"):
            ask()


@pytest.mark.parametrize(("frames", "fits"), [(120, True), (121, False)])
def test_more_frames_than_positions_are_refused_before_any_is_read(frames, fits):
    stage = fine_tune(backbone(512))
    stage._trainer = SimpleNamespace(datamodule=SimpleNamespace(settings={"num_frames": frames}))
    if fits:
        stage.setup("fit")
        return
    with pytest.raises(ConfigError, match=r"121 frames .* 120 rows; set vision.max_num_frames"):
        stage.setup("fit")


def test_stage_1_may_have_more_frames_than_it_aligns():
    stage = SemanticAlignment(tiny_backbone("stage=semantic_alignment"), OptimizerRecipe())
    stage._trainer = SimpleNamespace(datamodule=SimpleNamespace(settings={"num_frames": 500}))
    stage.setup("fit")


def test_prompts_longer_than_the_q_formers_positions_are_refused_when_it_is_built():
    with pytest.raises(InstantiationException, match="max_length is 129, but the Q-Former has 128"):
        tiny_backbone("prompt_tokenizer.max_length=129")


def test_stage_1_says_once_of_a_batch_of_one_row_that_it_teaches_nothing(caplog):
    stage = SemanticAlignment(tiny_backbone("stage=semantic_alignment"), OptimizerRecipe())
    one = random_batch((4,), targets=("comedy",))
    with caplog.at_level(logging.WARNING):
        losses = [stage.train().losses(one)["loss"].item() for _ in range(2)]
        stage.losses(random_batch())
        stage.eval().losses(one)
    assert losses == [0, 0]
    assert caplog.text.count("item i0 is a batch of its own") == 1
