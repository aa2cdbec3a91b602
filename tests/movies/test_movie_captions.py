import re

import pytest

from mmavlm.movies import MovieSetParameters, plan_movies, write_caption
from mmavlm.movies.captions import CAMERAS, COURSES, DEEDS, LOOKS, MAX_WORDS, MOODS, PLACES
from mmavlm.movies.plot import CLOTHES, FLOOR_DECOR, HATS, TOKEN_COLOURS, TOKENS, WALL_DECOR

MOVIES = [movie for _, movie in plan_movies(MovieSetParameters(clips=400))]
COLOURS = {*CLOTHES, *TOKEN_COLOURS}


def words(text):
    return re.findall(r"[a-z]+", text.lower())


def told(text, phrases):
    """The keys of `phrases` of which some phrase stands in the text, the blank standing for any."""
    return {
        key
        for key, options in phrases.items()
        if any(re.search(option.replace("{}", "an? [a-z ]+?"), text) for option in options)
    }


@pytest.mark.parametrize("movie", MOVIES[::8], ids=lambda movie: movie.movie_id)
def test_caption_tells_what_the_script_says_and_nothing_else(movie):
    text = write_caption(movie).lower()
    assert told(text, MOODS) == {movie.mood}
    assert told(text, LOOKS) == {movie.look}
    assert told(text, PLACES) == {movie.scene.place}
    assert told(text, COURSES) == {movie.course}
    assert movie.deeds in told(text, DEEDS)
    assert told(text, {key: (phrase,) for key, phrase in CAMERAS.items()}) <= {movie.camera}
    props = {prop.name for prop in movie.scene.props}
    assert {n for n in (*TOKENS, *WALL_DECOR, *FLOOR_DECOR) if f"a {n}" in text} <= props | {
        movie.token.name
    }


@pytest.mark.parametrize("movie", MOVIES[::8], ids=lambda movie: movie.movie_id)
def test_caption_names_what_people_wear_and_no_hat_they_lack(movie):
    text = write_caption(movie).lower()
    for character in movie.characters:
        garment = "dress" if character.gender == "woman" else "shirt"
        wears = [] if movie.look == "silent" else [f"{character.clothes} {garment}"]
        wears += [character.hat] if character.hat else []
        if wears:
            assert f"a {character.gender} in a {' and a '.join(wears)} " in text
            unworn = "|".join(hat for hat in HATS if hat)
            assert character.hat or not re.search(rf"{wears[-1]} and a ({unworn})", text)
        else:
            assert f"a bareheaded {character.gender} " in text


def test_deed_order_of_the_caption_is_the_order_of_the_script():
    for movie in MOVIES:
        text = write_caption(movie)
        marks = {
            "take": r"(?:takes|removes) an? |takes it away",
            "put": r"(?:puts|leaves) an? |puts it back",
        }
        found = sorted(
            (m.start(), deed) for deed, mark in marks.items() for m in re.finditer(mark, text)
        )
        assert tuple(deed for _, deed in found) == movie.deeds, text


def test_black_and_white_films_have_no_colours_in_their_captions():
    silent = [movie for movie in MOVIES if movie.look == "silent"]
    assert silent
    for movie in silent:
        without_look = write_caption(movie).lower().replace("black and white", "")
        assert not COLOURS & set(words(without_look))


def test_colour_films_name_the_clothes_and_the_token():
    for movie in MOVIES:
        if movie.look != "silent":
            text = write_caption(movie)
            for character in movie.characters:
                garment = "dress" if character.gender == "woman" else "shirt"
                assert f"{character.clothes} {garment}" in text
            assert f"{movie.token.colour} {movie.token.name}" in text


def test_captions_fit_the_word_limit():
    for seed in range(3):
        movies = (movie for _, movie in plan_movies(MovieSetParameters(clips=400, seed=seed)))
        assert max(len(write_caption(movie).split()) for movie in movies) <= MAX_WORDS


def test_captions_of_a_test_set_are_distinct():
    captions = [write_caption(movie) for movie in MOVIES[-80:]]
    assert len(set(captions)) == 80


def test_equal_scripts_have_equal_captions():
    assert write_caption(MOVIES[0]) == write_caption(MOVIES[0])
