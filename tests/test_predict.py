from mmavlm.run.ask import max_new_tokens
from mmavlm.stages import FineTune, OptimizerRecipe
from support import composed, tiny_backbone

NAME = "a class with a rather long name"


def test_answers_are_as_long_as_the_run_that_is_asked_gave_them_unless_set_anew():
    recipe = composed("stage.max_new_tokens=3")
    stage = FineTune(tiny_backbone(), OptimizerRecipe(), tasks=["genre"],
                     classes={"genre": ["comedy", NAME]}, max_new_tokens=3,
                     run={"config": recipe})  # fmt: skip
    longest = stage.backbone.llm.answer_length(NAME)
    assert longest > 3
    assert max_new_tokens(recipe, stage.run) == longest
    assert max_new_tokens(composed("stage.max_new_tokens=2"), stage.run) == 2
