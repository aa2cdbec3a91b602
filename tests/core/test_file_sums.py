import hashlib

import pytest

from mmavlm.core.files import file_sha256


@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 7])
def test_the_sum_of_a_file_is_that_of_its_bytes(tmp_path, size):
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    (tmp_path / "file").write_bytes(content)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()
