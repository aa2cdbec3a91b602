import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from mmavlm.metrics import AnswerAccuracy, RetrievalRecall

SHARES = {
    "even": [range(0, 12, 2), range(1, 12, 2)],
    "padded": [range(0, 7), range(5, 12)],
    "idle": [range(0, 12), range(0)],
}


def fill(items, answers: AnswerAccuracy, recall: RetrievalRecall):
    generator = torch.Generator().manual_seed(0)
    video, text = torch.randn(2, 12, 4, generator=generator)
    text = text + video
    for i in items:
        ids = [f"item {i}"]
        answers.update(ids, [f"v{i // 3}"], [["yes", "no"] if i % 4 else ["no"]], ["yes"])
        recall.update(video[i : i + 1], text[i : i + 1], ids, [f"text {i // 2}"])


def run_rank(rank: int, folder: str):
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    results = {}
    for name, shares in SHARES.items():
        metrics = AnswerAccuracy(), RetrievalRecall()
        fill(shares[rank], *metrics)
        results[name] = [metric.compute() for metric in metrics]
    torch.save(results, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.distributed
def test_two_processes_report_what_one_process_reports(tmp_path):
    mp.spawn(run_rank, (str(tmp_path),), nprocs=2)
    metrics = AnswerAccuracy(), RetrievalRecall()
    fill(range(12), *metrics)
    expected = [metric.compute() for metric in metrics]
    assert 0 < expected[0]["top1"] < 1
    assert 0 < expected[1]["v2t_r1"] < 1
    for rank in range(2):
        results = torch.load(tmp_path / f"rank{rank}.pt")
        assert results == dict.fromkeys(SHARES, expected)
