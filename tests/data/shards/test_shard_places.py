import fsspec
import pytest

from mmavlm.core.errors import ConfigError
from mmavlm.data.shards.places import Place, expanded, is_address, shards_of


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("a-{00..02}.tar", ["a-00.tar", "a-01.tar", "a-02.tar"]),
        ("a-{8..11}.tar", ["a-8.tar", "a-9.tar", "a-10.tar", "a-11.tar"]),
        ("{a,b}-{0..1}.tar", ["a-0.tar", "a-1.tar", "b-0.tar", "b-1.tar"]),
        ("a-{3..1}.tar", []),
    ],
)
def test_braces_are_read_as_webdataset_writes_them(pattern, names):
    assert expanded(pattern) == names


def test_braces_agree_with_those_of_the_braceexpand_package():
    braceexpand = pytest.importorskip("braceexpand")
    for pattern in ("t-{000000..000012}.tar", "{train,val}-{0..3}.{tar,parquet}", "x"):
        assert expanded(pattern) == list(braceexpand.braceexpand(pattern))


def test_a_pattern_of_too_many_shards_is_refused_before_any_is_named():
    with pytest.raises(ConfigError, match="names 1000001 shards"):
        expanded("a-{0..1000000}.tar")


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_globs_and_braces_name_files_of_a_folder_sorted_and_once(tmp_path, scheme):
    for name in ("b-1.tar", "b-0.tar", "b-0.tar.index.jsonl", "c.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "b-9.tar").mkdir()
    found = shards_of(f"{scheme}{tmp_path}", ["b-*.tar", "b-{0..1}.tar"], {})
    assert [place.name for place, _ in found] == ["b-0.tar", "b-1.tar"]
    for place, _ in found:
        assert place.is_local
        assert place.told().size == 7
        with place.open() as file:
            assert file.read().decode() == place.name


def test_what_a_file_system_tells_changes_with_a_file(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(b"one")
    before = Place(str(path)).told()
    path.write_bytes(b"two!")
    assert Place(str(path)).told() != before


def test_files_in_memory_are_found_and_read():
    with fsspec.open("memory://places/x-0.tar", "wb") as file:
        file.write(b"abc")
    ((place, told),) = shards_of("memory://places", "x-*.tar", {})
    assert is_address(place.address)
    assert told.size == 3
    assert told.version is not None
    with place.open() as file:
        assert file.read() == b"abc"


def test_an_address_that_no_file_system_knows_is_a_mistake():
    with pytest.raises(ConfigError, match=r"nowhere://a/b.tar names no file system"):
        Place("nowhere://a/b.tar").system()


def test_what_a_file_system_lacks_is_said_with_the_line_that_installs_it(monkeypatch):
    def lacking(*_, **__):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", lacking)
    with pytest.raises(ConfigError, match=r"s3:// needs .*s3fs.*pip install 'mmavlm\[shards\]'"):
        Place("s3://bucket/a.tar").system()


def test_a_password_in_an_address_is_refused_and_not_shown():
    with pytest.raises(ConfigError, match="holds a password") as refused:
        Place("https://me:hunter22@host/a.tar")
    assert "hunter22" not in str(refused.value)


def test_what_an_error_says_is_told_without_keys():
    place = Place("https://host/a.tar", {"client_kwargs": {"secret": "0123456789abc"}})
    error = OSError("no https://host/a.tar?X-Amz-Signature=feed with 0123456789abc\nand more")
    assert place.reason(error) == "no https://host/a.tar?*** with *** and more"
