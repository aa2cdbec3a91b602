import json
import math
import multiprocessing
import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmavlm.core.errors import DataError
from mmavlm.data.readers import json_files
from mmavlm.data.readers.json_files import elements, entries

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
spaces = st.sampled_from([None, 0, 2])


def written(path, content, indent):
    path.write_text(json.dumps(content, indent=indent), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("json") / "a.json"


@given(content=st.dictionaries(st.text(), values), indent=spaces, chunk=st.integers(1, 40))
def test_entries_are_those_of_the_whole_file_wherever_its_chunks_end(path, content, indent, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_files, "CHUNK_CHARS", chunk)
        assert list(entries(written(path, content, indent))) == list(content.items())


@given(content=st.lists(values), indent=spaces, chunk=st.integers(1, 40))
def test_elements_are_those_of_the_whole_file_wherever_its_chunks_end(path, content, indent, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_files, "CHUNK_CHARS", chunk)
        assert list(elements(written(path, content, indent))) == content
        below = {"info": {"elements": [1]}, "elements": content, "more": [2]}
        assert list(elements(written(path, below, indent), under="elements")) == content


def told(path, read):
    found = []
    try:
        found.extend(read(path))
    except DataError as error:
        found.append(str(error))
    return found


pieces = st.lists(
    st.sampled_from(
        ['"a": ', '"b": ', "{", "}", "[", "]", ",", "},", "{}", '"},"', "1", " ", "\n", "\\ud83d"]
    )
)


@pytest.mark.parametrize(("read", "brackets"), [(entries, "{}"), (elements, "[]")])
@given(pieces=pieces, chunk=st.integers(1, 40))
def test_what_is_parsed_at_once_is_what_is_parsed_singly(path, read, brackets, pieces, chunk):
    path.write_text(
        "".join([brackets[0], '"k": ' * (brackets == "{}"), "{}, ", *pieces, brackets[1]])
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_files, "CHUNK_CHARS", chunk)
        at_once = told(path, read)
        patch.setattr(json_files._Text, "_at_once", lambda self, parse: None)
        assert at_once == told(path, read)


def test_a_key_that_is_there_twice_is_given_twice(path):
    path.write_text('{"a": {"n": 1}, "a": {"n": 2},\n"b": {"n": 3}}')
    assert list(entries(path)) == [("a", {"n": 1}), ("a", {"n": 2}), ("b", {"n": 3})]


@given(content=st.dictionaries(st.text(), values), cut=st.floats(0, 1), chunk=st.integers(1, 40))
def test_a_file_that_is_cut_off_is_refused(path, content, cut, chunk):
    text = json.dumps(content)
    path.write_text(text[: int(cut * len(text))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_files, "CHUNK_CHARS", chunk)
        if int(cut * len(text)) < len(text):
            with pytest.raises(DataError, match=r"a\.json"):
                list(entries(path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1} {', "expected the end of the file in line 1, got '{'"),
        ('{"a": 1,\n"b": 2,\n}', "expected a key in double quotes in line 3, got '}'"),
        ('{"a": 1\n"b": 2}', "expected a comma or } in line 2"),
        ('{"a" 1}', "expected a colon in line 1"),
        ('{"a":\n\n tru}', "Expecting value in line 3"),
        ("[]", "must hold a JSON object, got a list"),
        ("7", "must hold a JSON object, got a single value"),
        ("", "must hold a JSON object, got nothing"),
        ('{"a":\n' + "[" * 100_000, "is not JSON: brackets are nested too deep in line 2"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(tmp_path, text, said):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError) as error:
        list(entries(path))
    assert f"{path} " in str(error.value)
    assert said in str(error.value)


def test_an_object_without_the_list_asked_for_is_refused(tmp_path):
    path = written(tmp_path / "a.json", {"images": []}, None)
    with pytest.raises(DataError, match="must hold a list under 'annotations'"):
        list(elements(path, under="annotations"))


def test_a_file_that_is_not_utf_8_is_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(
        DataError, match=r"a\.json cannot be read: 'utf-8' codec .* save it as UTF-8"
    ):
        list(entries(path))


def test_an_entry_without_end_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(json_files, "MAX_ENTRY_CHARS", 1000)
    monkeypatch.setattr(json_files, "CHUNK_CHARS", 100)
    path = tmp_path / "a.json"
    path.write_text('{"a": 1,\n"b": "' + "x" * 100_000)
    with pytest.raises(DataError, match="line 2: one entry has more than 1000 characters"):
        list(entries(path))


def peak_growth(path):
    """Bytes by which reading all entries raises this process's peak, and their number."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = sum(1 for _ in entries(path))
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024, count


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path):
    entry = json.dumps({"question": "who comes in at the end? " * 4, "answer": "a woman"})
    path = tmp_path / "large.json"
    with path.open("w") as file:
        file.write("{" + ",\n".join(f'"film {i}": {entry}' for i in range(400_000)) + "}")
    assert path.stat().st_size > 60e6
    with multiprocessing.get_context("spawn").Pool(1) as alone:
        grown, count = alone.apply(peak_growth, (path,))
    assert count == 400_000
    assert grown < 20e6


def test_halves_of_characters_become_a_sign_that_texts_can_hold(path):
    whole, half = {"a": ["\U0001f63a", 1]}, {"b\ud800": [{"\udc00": "\ud83d!"}]}
    written(path, whole | half, None)
    assert dict(entries(path)) == whole | {"b\ufffd": [{"\ufffd": "\ufffd!"}]}
    assert json_files.read_json(path) == dict(entries(path))


def test_a_number_beyond_all_that_are_used_is_infinite(path):
    path.write_text('{"a": ' + "1" * 5000 + ', "b": -12}')
    assert dict(entries(path)) == {"a": math.inf, "b": -12}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_other_encodings_of_unicode_are_read(path, encoding):
    path.write_text('{"a": "é"}', encoding=encoding)
    assert dict(entries(path)) == {"a": "é"}
