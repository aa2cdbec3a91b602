from dataclasses import replace
from itertools import pairwise

import pytest

from mmavlm.core.errors import DataError
from mmavlm.movies.generators import Grammar
from mmavlm.movies.stories.expand import expand
from mmavlm.movies.stories.make import ask_about
from mmavlm.movies.stories.questions import CATEGORIES, choose, questions
from mmavlm.movies.stories.verify import Witness, verify

SEEDS = range(40)


def log_of(seed, fan_out=(2, 2, 6)):
    return expand(Grammar(), fan_out, seed=str(seed)).log


@pytest.mark.parametrize("seed", SEEDS)
def test_every_question_is_borne_out_by_the_world_in_film_chapter_and_scene(seed):
    story = expand(Grammar(), (2, 2, 6), seed=str(seed))
    for start, end in [(0, 24), (0, 12), (12, 24), (0, 6), (6, 12), (12, 18), (18, 24)]:
        asked = questions(story.log, start, end)
        verify(asked, story.log)
        for question in asked:
            assert question.evidence
            assert all(start <= frame < end for frame in question.evidence)
        texts = [question.question for question in asked]
        assert len(set(texts)) == len(texts)


def test_a_long_film_is_asked_about_in_every_category_and_borne_out():
    story = expand(Grammar(), (5, 5, 8), seed="1")
    asked = ask_about(story, 1, seed=0)
    verify(asked, story.log)
    assert {question.category for question in asked} == set(CATEGORIES)
    spans = {(question.start, question.end) for question in asked}
    assert {(0, 200), (0, 40), (0, 8)} <= spans


def test_a_wrong_answer_does_not_pass():
    log = log_of(0)
    for question in questions(log, 0, len(log)):
        with pytest.raises(DataError, match="but the log says"):
            verify([replace(question, answer=f"{question.answer}, perhaps")], log)


def test_evidence_that_shows_nothing_does_not_pass():
    log = log_of(0)
    for question in questions(log, 0, len(log)):
        with pytest.raises(DataError, match="but the log says"):
            verify([replace(question, evidence=(*question.evidence, len(log)))], log)


def test_a_log_that_was_changed_is_noticed():
    log = log_of(3)
    asked = [q for q in questions(log, 0, len(log)) if q.question.startswith("Who has")]
    holder = next(name for name in log[-1]["people"] if name != asked[0].answer)
    thing = asked[0].question.removeprefix("Who has ").removesuffix(" at the end?")
    changed = {**log[-1]["things"], thing: {"lies": None, "held_by": holder}}
    with pytest.raises(DataError, match=r"Who has .* but the log says"):
        verify(asked, [*log[:-1], {**log[-1], "things": changed}])


def test_an_independent_count_agrees_that_things_are_taken_so_often():
    log = log_of(5, (2, 4, 8))
    for thing in log[0]["things"]:
        held = [row["things"][thing]["held_by"] is not None for row in log]
        times = sum(now and not before for before, now in pairwise(held))
        asked = [q for q in questions(log, 0, len(log))
                 if q.question == f"How many times is {thing} taken?"]  # fmt: skip
        assert [len(q.evidence) for q in asked] == ([times] if times else [])


def test_the_witness_knows_its_questions_only():
    witness = Witness(log_of(0), 0, 24)
    with pytest.raises(DataError, match="no kind of question is 'Why not"):
        witness.answer("Why not?")
    with pytest.raises(DataError, match="nothing in the film answers"):
        witness.answer("Who is the first to take the pink hippo?")


def test_so_many_of_each_category_are_chosen_and_the_same_for_a_seed():
    log = log_of(7, (3, 3, 8))
    asked = questions(log, 0, len(log))
    chosen = choose(asked, 2, seed=1)
    counts = [sum(q.category == category for q in chosen) for category in CATEGORIES]
    assert max(counts) == 2
    assert chosen == choose(asked, 2, seed=1)
    assert [q for q in asked if q in chosen] == sorted(chosen, key=asked.index)
