import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mmavlm.core.errors import ConfigError, DataError
from mmavlm.core.options import Options, check_style, read_options

DOG, CAT, HOT_DOG = 0, 1, 2
FOOD = ("a dog", "a cat", "a hot dog")
STYLES = ("letters", "numbers", "texts")

words = st.text("bcdfghjklmpqrtvwxz", min_size=3, max_size=6)
several = st.lists(words, min_size=2, max_size=26, unique=True)
asked = st.builds(Options, several.map(tuple), st.sampled_from(STYLES))


@pytest.mark.parametrize(
    ("answer", "option"),
    [
        ("B", CAT),
        ("b.", CAT),
        ("(b)", CAT),
        ("2", CAT),
        ("2.", CAT),
        (" **C** ", HOT_DOG),
        ("B. a cat", CAT),
        ("(B) because it purrs", CAT),
        ("2: it purrs", CAT),
        ("A - it barks", DOG),
        ("The answer is (B)", CAT),
        ("The answer is B.", CAT),
        ("answer: B", CAT),
        ("The answer is b because it purrs", CAT),
        ("option 2", CAT),
        ("I would take option A, it barks", DOG),
        ("Option A is right", DOG),
        ("I think (B)", CAT),
        ("a cat", CAT),
        ("A CAT!", CAT),
        ("It must be a cat here.", CAT),
        ("a hot dog on a plate", HOT_DOG),
        ("C. Not a cat", HOT_DOG),
    ],
)
def test_an_answer_names_an_option(answer, option):
    for style in STYLES:
        assert Options(FOOD, style).index(answer) == option


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "A man walks by",
        "a man",
        "The answer is a man",
        "the option a man would take",
        "2 men",
        "The answer is 2 men",
        "1.5",
        "at 3:30",
        "I.e. nothing",
        "D",
        "4",
        "26.",
        "cat",
        "catalogue",
        "a cats",
        "A or B",
        "the answer is A, or the answer is B",
        "a dog and a cat",
        "B. a dog",
        "(A) or (B)",
        "It is not a cat",
        "The answer isn't B",
        "The answer isn’t B",
    ],
)
def test_an_answer_that_names_none_or_two_is_unparsed(answer):
    for style in STYLES:
        assert Options(FOOD, style).index(answer) is None
        assert Options(FOOD, style).choose(answer) == ""


def test_numbers_are_texts_where_they_are_to_choose_from():
    counts = ("2", "3", "1")
    assert Options(counts, "letters").index("3") == 1
    assert Options(counts, "texts").index("there are 3 of them") == 1
    assert Options(counts, "numbers").index("3") is None  # the third, or three?
    assert Options(("3", "4", "5"), "numbers").index("2") == 1


def test_letters_are_texts_where_they_are_to_choose_from():
    assert Options(("b", "a"), "texts").index("a") == 1
    assert Options(("b", "a"), "letters").index("a") is None
    assert Options(("b", "x"), "letters").index("A") == 0


def test_options_that_deny_are_named_by_it():
    assert Options(("yes", "no"), "texts").index("No, she does not") == 1
    assert Options(("it is red", "it is not red"), "texts").index("It is not red.") == 1


@given(asked, st.data())
def test_what_is_asked_for_names_its_option_however_it_is_wrapped(options, data):
    i = data.draw(st.integers(0, len(options.texts) - 1))
    wrap = data.draw(
        st.sampled_from(
            ["{}", " {} ", "{}.", "({})", '"{}"', "the answer is {}", "The answer is: ({}).",
             "Answer: {}", "I choose option ({})"]
        )
    )  # fmt: skip
    answer = wrap.format(options.answers[i])
    for said in (answer, answer.lower(), answer.upper()):
        assert options.index(said) == i
        assert options.choose(said) == options.answers[i]


@given(asked, st.data())
def test_a_label_with_its_own_text_names_it_and_with_anothers_nothing(options, data):
    i = data.draw(st.integers(0, len(options.texts) - 1))
    label = Options(options.texts, data.draw(st.sampled_from(["letters", "numbers"]))).answers[i]
    own, other = options.texts[i], options.texts[i - 1]
    assert options.index(f"{label}. {own}") == i
    assert options.index(f"({label}) {other}") is None


@given(asked, st.text(max_size=60))
def test_any_answer_names_one_option_or_none(options, answer):
    assert options.index(answer) in {None, *range(len(options.texts))}


@given(asked, words)
def test_an_article_is_no_option(options, word):
    assume(word not in options.texts)
    assert options.index(f"A {word} stands there") is None
    assert options.index(f"The answer is a {word}") is None


@given(several, st.randoms(), st.sampled_from(["it shows {} here", "{}", "surely {}!"]))
def test_texts_name_their_option_in_any_order(texts, random, wrap):
    shuffled = random.sample(texts, len(texts))
    answer = wrap.format(texts[0])
    assert Options(tuple(shuffled)).index(answer) == shuffled.index(texts[0])


@pytest.mark.parametrize(
    ("style", "listed"),
    [
        ("letters", "Options: (A) a dog (B) a cat (C) a hot dog"),
        ("numbers", "Options: (1) a dog (2) a cat (3) a hot dog"),
        ("texts", "Options: a dog, a cat, a hot dog"),
    ],
)
def test_options_are_listed_behind_the_prompt_or_in_their_place(style, listed):
    options = Options(FOOD, style)
    assert options.ask("what is it?") == f"what is it? {listed}"
    assert options.ask("what is it? {options} Answer:") == f"what is it? {listed} Answer:"


@pytest.mark.parametrize("right", ["a cat", "A cat.", "B", "2"])
def test_the_right_option_is_told_by_text_letter_or_number(right):
    options, index = read_options(FOOD, "numbers", right)
    assert (options.answers[index], options.texts[index]) == ("2", "a cat")


@pytest.mark.parametrize(
    ("texts", "right", "message"),
    [
        (FOOD, "a bird", "the answer 'a bird' is none of the options"),
        (("a dog",), "a dog", "2 to 26 options, got 1"),
        (("a dog", "A dog."), "a dog", "no two read alike"),
        (("a dog", "?"), "a dog", "no two read alike"),
    ],
)
def test_options_that_cannot_be_asked_are_refused(texts, right, message):
    with pytest.raises(DataError, match=message):
        read_options(texts, "letters", right)


def test_an_unknown_style_names_the_setting():
    with pytest.raises(
        ConfigError, match=r"data.reader.options='roman' is unknown; choose letters"
    ):
        check_style("roman", "data.reader.options")
