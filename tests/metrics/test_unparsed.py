from mmavlm.metrics import UnparsedRate


def test_the_share_counts_an_item_seen_twice_once():
    rate = UnparsedRate()
    rate.update(["a", "b", "c"], ["A", "", "B"])
    rate.update(["b", "d"], ["", ""])
    assert rate.compute() == {"unparsed": 0.5, "parsed_of": 4}


def test_without_items_there_is_no_share():
    assert UnparsedRate().compute() == {}
