import pytest

from mmavlm.core.errors import ConfigError
from mmavlm.metrics import parse_letters, parse_order, parse_yes_no
from mmavlm.metrics.parsing import NO, UNPARSED, YES

# One answer a row, and what each benchmark's published code makes of it; the columns were worked
# out by hand from those scripts.
ANSWERS = {  # strict, pope, eventhallusion, elv, videohallucer, vidhalluc
    "Yes": (YES, YES, YES, YES, YES, YES),
    "no.": (NO, NO, NO, NO, NO, NO),
    "No, there is no dog.": (NO, NO, NO, NO, UNPARSED, NO),
    "Yes, there is no cat.": (YES, NO, YES, YES, UNPARSED, YES),
    " yes. It barks": (YES, YES, UNPARSED, YES, YES, YES),
    "There is not.": (UNPARSED, NO, UNPARSED, NO, UNPARSED, UNPARSED),
    "I do not know": (UNPARSED, NO, UNPARSED, NO, UNPARSED, UNPARSED),
    "The answer is yes.": (YES, YES, UNPARSED, YES, UNPARSED, UNPARSED),
    "The answer is no": (NO, NO, UNPARSED, NO, UNPARSED, UNPARSED),
    "Not yes and not no": (UNPARSED, NO, NO, YES, UNPARSED, UNPARSED),
    "yesterday": (UNPARSED, YES, YES, YES, UNPARSED, UNPARSED),
    "Nobody": (UNPARSED, YES, NO, NO, UNPARSED, UNPARSED),
    "no-one is there": (UNPARSED, YES, NO, NO, UNPARSED, UNPARSED),
    "": (UNPARSED, YES, UNPARSED, UNPARSED, UNPARSED, UNPARSED),
    "A dog. There is no cat": (NO, YES, UNPARSED, NO, UNPARSED, UNPARSED),
    "**Yes**": (YES, YES, UNPARSED, YES, UNPARSED, UNPARSED),
}
WAYS = ("strict", "pope", "eventhallusion", "elv", "videohallucer", "vidhalluc")


@pytest.mark.parametrize("answer", ANSWERS)
def test_each_way_reads_an_answer_as_its_benchmark_does(answer):
    assert tuple(parse_yes_no(answer, way) for way in WAYS) == ANSWERS[answer]


def test_an_unknown_way_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"parsing='gpt' is unknown; choose one of strict, pope"):
        parse_yes_no("yes", "gpt")


@pytest.mark.parametrize(
    ("answer", "order"),
    [
        ("AB", "AB"),
        ("ba.", "BA"),
        ("Action B, then action A.", "BA"),
        ("Action A comes before action B", "AB"),
        ("Action A happens after Action B", "BA"),
        ("First B. Then A", "BA"),
        ("Action A. Action A again, then Action B", "AB"),
        ("Action A", None),
        ("I see a dog and a ball", None),
        ("about", None),
        ("", None),
    ],
)
def test_an_order_is_read_from_letters_and_mentions(answer, order):
    assert parse_order(answer) == order


CHOICES = {"A": "they run", "B": "they jump", "C": "they sit", "D": "they sleep"}


@pytest.mark.parametrize(
    ("answer", "letters"),
    [
        ("B", "B"),
        ("BD", "BD"),
        ("A, C.", "AC"),
        ("B and D", "BD"),
        ("(C)", "C"),
        ("The answer is B.", "B"),
        ("D. they sleep", "D"),
        ("I think They Jump", "B"),
        ("The answer is B", "B"),
        ("Answer: B", "B"),
        ("Option B", "B"),
        ("I think A and C are correct", "AC"),
        ("both B, C and D", "BCD"),
        ("the answer is A", "A"),
        ("A is what they do", "A"),
        ("Option A shows what they do", "A"),
        ("A dog barks", ""),
        ("the answer is a dog", ""),
        ("I cannot see B", ""),
        ("It is an A-frame, on the B-side", ""),
        ("", ""),
    ],
)
def test_options_are_read_from_letters_or_from_their_texts(answer, letters):
    assert parse_letters(answer, CHOICES) == frozenset(letters)


@pytest.mark.parametrize(
    ("answer", "letters"),
    [
        ("I think A and C are correct", "AC"),
        ("A dog barks", "A"),
        ("I cannot see B", "B"),
        ("BD", ""),
        ("They run, then they jump", "A"),
        ("nothing", ""),
    ],
)
def test_letters_may_be_read_as_vidhalluc_reads_them(answer, letters):
    assert parse_letters(answer, CHOICES, "vidhalluc") == frozenset(letters)
