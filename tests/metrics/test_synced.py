import pytest
import torch
import torch.distributed as dist
from predicted import predicted

from mmavlm.metrics import (
    AnswerAccuracy,
    CaptionScores,
    Chair,
    GroupAccuracy,
    OrderAccuracy,
    PairedAccuracy,
    RetrievalRecall,
    SAHRatio,
    YesNoStats,
    captions,
)
from mmavlm.metrics.confusion import ConfusionCounts
from mmavlm.metrics.duet.film_metrics import Speaking
from mmavlm.metrics.duet.watched import Event, EventTruth, Said, Watched
from mmavlm.metrics.sah import KINDS
from ranks import be_rank, spawn_ranks

SHARES = {
    "even": [range(0, 12, 2), range(1, 12, 2)],
    "padded": [range(0, 7), range(5, 12)],
    "idle": [range(0, 12), range(0)],
}


KNOWN = ("yes", "no")  # answers that have a class
HALLUCINATION = (YesNoStats, PairedAccuracy, GroupAccuracy, SAHRatio, OrderAccuracy, Chair)


def all_metrics():
    return (
        AnswerAccuracy(),
        RetrievalRecall(),
        *(metric() for metric in HALLUCINATION),
        CaptionScores(),
        Speaking(every_s=[2]),
        ConfusionCounts({"q": KNOWN}),
    )


def fill(items, answers, recall, yes_no, paired, groups, sah, order, chair, captioned, speaking,
         confused):  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    video, text = torch.randn(2, 12, 4, generator=generator)
    text = text + video
    for i in items:
        ids = [f"item {i}"]
        answers.update(ids, [f"v{i // 3}"], [["yes", "no"] if i % 4 else ["no"]], ["yes"])
        recall.update(video[i : i + 1], text[i : i + 1], ids, [f"text {i // 2}"])
        said, truth = ["yes" if i % 5 else "no"], ["no" if i % 2 else "yes"]
        yes_no.update(ids, said, truth)
        paired.update(ids, [f"pair {i // 2}"], [bool(i % 2)], said, truth)
        groups.update(ids, [f"group {i // 4}"], [i % 4 > 0 or i > 6])
        sah.update(ids, [f"triplet {i // 3}"], [KINDS[i % 3]],
                   ["no" if i in (1, 2, 5, 8) else "yes"],
                   ["no" if i % 3 else "yes"])  # fmt: skip
        order.update(ids, ["AB" if i % 3 else "BA"], ["AB"])
        chair.update(ids, ["a dog and a cat" if i % 3 else "a cat"], [["a cat"]])
        captioned.update(ids, [f"v{i // 3}"], [f"a café {i % 5}"], [[f"a café {i}", "cafés"]])
        film = Watched(*ids, 9.5, (), {}, (Said(i / 3, "now"), Said(8.0, f"then {i}")))
        truth = EventTruth(*ids, f"v{i // 3}", (Event(2.0, 2.0), Event(7.0, 8.5)))
        speaking.update([film if i % 4 else None], [truth])
        confused.update([predicted(i, said, "maybe" if i == 6 else KNOWN[i % 2], task="q")])


def computed(metrics):
    """What metrics come to, as plain values."""
    *others, counts = (metric.compute() for metric in metrics)
    return [*others, {task: (found.counts.tolist(), found.left_out)
                      for task, found in counts.items()}]  # fmt: skip


def run_rank(rank: int, port: int, folder: str):
    be_rank(rank, port)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    captions.java = lambda: None if rank == 0 else "of another machine"
    results = {}
    for name, shares in SHARES.items():
        metrics = all_metrics()
        fill(shares[rank], *metrics)
        results[name] = computed(metrics)
    torch.save(results, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.distributed
def test_two_processes_report_what_one_process_reports(tmp_path, monkeypatch):
    pytest.importorskip("pycocoevalcap", reason="needs the extra [captions]")
    monkeypatch.setattr(captions, "java", lambda: None)
    spawn_ranks(run_rank, str(tmp_path))
    metrics = all_metrics()
    fill(range(12), *metrics)
    expected = computed(metrics)
    assert 0 < expected[0]["top1"] < 1
    assert 0 < expected[1]["v2t_r1"] < 1
    told = ("f1", "hallucinated", "accuracy", "sah_ratio", "accuracy", "chair_i", "rouge_l_plain",
            "speaking_f1")  # fmt: skip
    assert expected[-1] == {"q": ([[3, 2, 0], [5, 1, 0]], 1)}
    for values, name in zip(expected[2:-1], told, strict=True):
        assert 0 < values[name] < 1
    for rank in range(2):
        results = torch.load(tmp_path / f"rank{rank}.pt")
        assert results == dict.fromkeys(SHARES, expected)
