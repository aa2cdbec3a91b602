import pytest

from mmavlm.errors import ConfigError
from mmavlm.metrics import parse_letters, parse_order, parse_yes_no
from mmavlm.metrics.parsing import NO, UNPARSED, YES

# One answer a row, and what each benchmark's published code makes of it; the columns were worked
# out by hand from those scripts.
ANSWERS = {  # strict, pope, eventhallusion, elv, videohallucer
    "Yes": (YES, YES, YES, YES, YES),
    "no.": (NO, NO, NO, NO, NO),
    "No, there is no dog.": (NO, NO, NO, NO, UNPARSED),
    "Yes, there is no cat.": (YES, NO, YES, YES, UNPARSED),
    " yes. It barks": (YES, YES, UNPARSED, YES, YES),
    "There is not.": (UNPARSED, NO, UNPARSED, NO, UNPARSED),
    "I do not know": (UNPARSED, NO, UNPARSED, NO, UNPARSED),
    "The answer is yes.": (YES, YES, UNPARSED, YES, UNPARSED),
    "The answer is no": (NO, NO, UNPARSED, NO, UNPARSED),
    "Not yes and not no": (UNPARSED, NO, NO, YES, UNPARSED),
    "yesterday": (UNPARSED, YES, YES, YES, UNPARSED),
    "Nobody": (UNPARSED, YES, NO, NO, UNPARSED),
    "no-one is there": (UNPARSED, YES, NO, NO, UNPARSED),
    "": (UNPARSED, YES, UNPARSED, UNPARSED, UNPARSED),
    "A dog. There is no cat": (NO, YES, UNPARSED, NO, UNPARSED),
    "**Yes**": (YES, YES, UNPARSED, YES, UNPARSED),
}
WAYS = ("strict", "pope", "eventhallusion", "elv", "videohallucer")


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
        ("A dog barks", ""),
        ("", ""),
    ],
)
def test_options_are_read_from_letters_or_from_their_texts(answer, letters):
    assert parse_letters(answer, CHOICES) == frozenset(letters)
