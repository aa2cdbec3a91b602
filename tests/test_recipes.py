"""The recipes of the public sets are MA-LMM's, row by row."""

import pytest

from mmavlm.core.config_files import config_dir
from support import composed

# Frames, bank length, lr, epochs, batch, accumulation, shortest and longest answer, rule. Published
# lengths of answers count the BOS.
ROWS = {
    "lvu_genre": (100, 20, 1e-4, 20, 16, 1, 1, 5, "whole"),
    "breakfast": (100, 20, 1e-4, 20, 16, 1, 1, 20, "whole"),
    "coin": (100, 20, 1e-4, 20, 16, 1, 1, 20, "whole"),
    "msvd_qa": (20, 10, 1e-4, 5, 32, 1, 1, 10, "first_word"),
    "msrvtt_qa": (20, 10, 1e-4, 5, 32, 1, 1, 10, "first_word"),
    "activitynet_qa": (20, 10, 1e-4, 5, 32, 1, 1, 10, "whole"),
    "msvd_caption": (80, 40, 1e-5, 10, 16, 2, 1, 50, "caption"),
    "msrvtt_caption": (80, 40, 1e-5, 10, 16, 2, 1, 50, "caption"),
    "youcook2_caption": (80, 40, 1e-4, 10, 16, 2, 2, 30, "caption"),
}

WITH_CLASSES = ("lvu_genre", "breakfast", "coin")
BENCHMARKS = sorted(path.stem for path in (config_dir() / "experiment").glob("eval_*.yaml"))

# What a benchmark asks for itself: tokens of a prompt, and of an answer.
LONG = {"eval_avhbench": (128, 64), "eval_omnivchall": (512, 16)}


@pytest.mark.parametrize("experiment", ROWS)
def test_an_experiment_has_the_row_of_its_set(experiment):
    config = composed(f"experiment={experiment}")
    data, stage, trainer = config.data, config.stage, config.trainer
    row = (
        *(data.num_frames, config.memory.length, config.optimizer.lr, trainer.max_epochs),
        *(data.batch_size, trainer.get("accumulate_grad_batches", 1)),
        *(stage.min_new_tokens + 1, stage.max_new_tokens + 1, stage.compare),
    )
    assert row == ROWS[experiment]
    decoding = (stage.repetition_penalty, stage.penalize_bos, stage.length_penalty)
    assert decoding == (1.5, True, 0.0 if experiment.endswith("_qa") else 1.0)
    assert stage.fit_classes == stage.rank_with_eos == (experiment not in WITH_CLASSES)
    limit = 30 if experiment in WITH_CLASSES else 128
    assert (config.llm.max_prompt_tokens, config.prompt_tokenizer.max_length) == (limit, limit)
    warmup_batches = config.optimizer.warmup_steps * row[5]
    assert (warmup_batches, config.seed, stage.num_beams) == (1000, 42, 5)


MMA_MFF = sorted(path.stem for path in (config_dir() / "experiment").glob("mma_mff_*.yaml"))


@pytest.mark.parametrize("experiment", MMA_MFF)
def test_the_recipes_of_mma_mff_choose_its_alignment_and_add_it_to_the_set_s_own(experiment):
    config = composed(f"experiment={experiment}", "data.root=/data", "model=instructblip_vicuna")
    alignment = config.alignment
    assert (alignment.levels, alignment.cross_layers) == (["high", "cross"], [0, 5, 10])
    assert (alignment.text_encoder, alignment.separator, alignment.reduction) == (None, "", "frame")
    assert (alignment.embed_dim, alignment.projection_bias, alignment.gather) == (768, False, False)
    assert (alignment.loss.label_smoothing, alignment.temperature.minimum) == (0.1, None)
    if experiment == "mma_mff_stage1":
        assert alignment.frames._target_.endswith("FirstLast")
        return
    assert alignment.frames._target_.endswith("FirstMiddleLast")
    assert config.stage.align_weight == {"high": 0.01, "cross": 0.02}
    assert config.fusion._target_.endswith("CrossAttentionFusion")
    plain = composed(f"experiment={experiment.removeprefix('mma_mff_')}", "data.root=/data")
    assert config.data == plain.data
    assert config.stage.max_new_tokens == plain.stage.max_new_tokens + 1  # without the BOS
    texts = config.prompt_tokenizer.max_length + config.llm.max_answer_tokens / 2 + 1
    assert alignment.max_text_tokens == texts


@pytest.mark.parametrize("experiment", [name for name in ROWS if name.endswith("caption")])
def test_captions_are_chosen_by_a_score_that_every_machine_has(experiment):
    config = composed(f"experiment={experiment}")
    assert (config.stage.monitor, config.callbacks.checkpoint.mode) == (
        "val/cider_plain",
        "max",
    )


@pytest.mark.parametrize(
    ("experiment", "benchmark"),
    [
        *((experiment, BENCHMARKS[0]) for experiment in [*ROWS, "mix", "own_videos"]),
        *(("msvd_caption", benchmark) for benchmark in BENCHMARKS[1:]),
    ],
)
def test_no_recipe_says_how_a_benchmark_is_answered(experiment, benchmark):
    config = composed(f"experiment=[{experiment},{benchmark}]", "data.root=/data")
    longest, answer = LONG.get(benchmark, (128, 16))
    assert (config.llm.max_prompt_tokens, config.prompt_tokenizer.max_length) == (longest, 128)
    stage = config.stage
    rules = (stage.compare, stage.min_new_tokens, stage.max_new_tokens)
    assert rules == ("whole", 1, answer)
    assert (stage.fit_classes, stage.rank_with_eos, stage.penalize_bos) == (True, True, False)
    assert (stage.repetition_penalty, stage.length_penalty) == (1.0, 1.0)


@pytest.mark.parametrize("memory", ["none", "fifo", "average", "episodic", "token_merging"])
def test_a_recipe_goes_with_any_memory(memory):
    assert composed("experiment=msvd_qa", f"memory={memory}").memory.length == 10


def test_each_task_may_have_a_rule_of_its_own():
    config = composed("experiment=own_videos", "stage.compare={qa: first_word, open: caption}")
    assert config.stage.compare == {"qa": "first_word", "open": "caption"}
