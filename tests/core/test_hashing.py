import torch

from mmavlm.core.hashing import string_keys


def test_keys_are_equal_for_equal_strings_alone_and_the_same_in_every_run():
    keys = string_keys(["a cat", "a dog", "a cat", ""])
    assert keys.dtype == torch.int64
    assert keys[0] == keys[2]
    assert len(set(keys.tolist())) == 3
    assert (keys >= 0).all()
    assert keys[0].item() == string_keys(["a cat"]).item() == 3745569759787347665
