import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

import simulate_scale as scale
from mmavlm.core.flops import products_of
from mmavlm.model.qformer import QFormer
from simulate_scale import ALIGN, PLANS, Plan, Rates, limits, result, simulate

GPUS = (1, 8, 64, 256)
ENDLESS = float("inf")
# Nothing but work: links without limit, times that are all alike.
IDEAL = Rates(
    spread=0, request_s=0, node_bytes_s=ENDLESS, bucket_bytes_s=ENDLESS, link_bytes_s=ENDLESS,
    inner_bytes_s=ENDLESS,
)  # fmt: skip
plans = pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.work} {plan.stored}")


@plans
def test_more_gpus_are_never_slower_where_links_have_no_limit(plan):
    hours = [result(plan, IDEAL, gpus)["epoch_h"] for gpus in GPUS]
    assert hours == sorted(hours, reverse=True)
    assert hours[0] / hours[-1] == pytest.approx(256, rel=0.01)


@plans
def test_every_byte_is_read_once_whatever_the_number_of_nodes(plan):
    rates = Rates()
    for row in (result(plan, rates, gpus) for gpus in GPUS):
        assert row["bytes"] == rates.clips * plan.clip_bytes(rates)
        assert row["bytes_a_node"] * row["nodes"] == pytest.approx(row["bytes"])
        assert row["bytes_s"] * row["epoch_h"] * 3600 == pytest.approx(row["bytes"])
        assert row["steps"] * rates.batch * row["gpus"] >= rates.clips
        assert row["shards"] * rates.shard_bytes >= row["bytes"]


@plans
@pytest.mark.parametrize("gpus", GPUS)
def test_a_step_takes_the_time_of_its_bottleneck_where_times_are_all_alike(plan, gpus):
    rates = Rates(spread=0, request_s=0, hidden=0)
    alone = limits(plan, rates, gpus)
    gradients = alone.pop("gradients")
    device = max(alone.pop("arithmetic"), alone.pop("launches"))
    longest = max(device + gradients, *alone.values())
    assert simulate(plan, rates, gpus) == pytest.approx(longest, rel=0.02)


@plans
@pytest.mark.parametrize("gpus", [8, 256])
def test_no_step_is_faster_than_what_limits_it(plan, gpus):
    alone = limits(plan, Rates(), gpus)
    alone.pop("gradients")  # which travel while the backward pass goes on
    assert simulate(plan, Rates(), gpus) >= max(alone.values()) * 0.97  # drawn times have a spread


@plans
@pytest.mark.parametrize(
    "better",
    [{"cores": 24}, {"node_bytes_s": 16e9}, {"bucket_bytes_s": 1e12}, {"mfu": 0.6},
     {"link_bytes_s": 70e9}, {"decode_s": 0.1, "read_s": 0.005}, {"prefetch": 4}],
    ids=lambda better: next(iter(better)),
)  # fmt: skip
def test_a_better_rate_never_makes_a_step_slower(plan, better):
    rates = Rates(spread=0)
    before, after = (simulate(plan, r, 64) for r in (rates, replace(rates, **better)))
    assert after <= before * 1.001


@plans
def test_times_that_differ_only_cost(plan):
    assert simulate(plan, Rates(spread=1.0), 256) >= simulate(plan, Rates(spread=0), 256) * 0.99


def test_gradients_travel_once_there_is_more_than_one_gpu():
    plan = PLANS[0]
    travel = [limits(plan, Rates(), gpus)["gradients"] for gpus in GPUS]
    assert travel[0] == 0
    assert travel == sorted(travel)


def test_the_same_seed_gives_the_same_step_and_another_one_another():
    plan = PLANS[0]
    assert simulate(plan, Rates(), 8, seed=1) == simulate(plan, Rates(), 8, seed=1)
    assert simulate(plan, Rates(), 8, seed=1) != simulate(plan, Rates(), 8, seed=2)


def test_frames_that_nobody_looks_at_are_not_encoded():
    assert Plan(ALIGN, read=20).flops(4) == Plan(ALIGN, read=3).flops(4)
    assert Plan(ALIGN, read=20).clip_bytes(Rates()) == Plan(ALIGN, read=3).clip_bytes(Rates())


def numbers(products):
    return products.learnt + products.frozen


@pytest.mark.slow
def test_the_sizes_are_those_of_the_models():
    with torch.device("meta"):
        vit = timm.create_model("eva_giant_patch14_224", pretrained=False, num_classes=0)
        llama = LlamaForCausalLM(LlamaConfig())
        bert = BertModel(BertConfig())
        qformer = QFormer(visual_width=scale.WIDTH, vocab_size=30_523)
    for ours, module, head in (
        (scale.VIT, vit, None),
        (scale.VICUNA, llama, llama.get_output_embeddings()),
        (scale.HEAD, llama.get_output_embeddings(), None),
        (scale.BERT, bert.encoder, None),
    ):
        found = products_of(module, without=head)
        assert numbers(ours) == pytest.approx(numbers(found), rel=0.02)
        assert ours.attending == found.attending
    crossing = sum(layer.crossattention is not None for layer in qformer.layers)
    assert (scale.QFORMER.layers, scale.QFORMER.crossing) == (len(qformer.layers), crossing)
    learnt = sum(p.numel() for p in qformer.parameters())
    assert scale.LEARNT["answer"] == pytest.approx(learnt, rel=0.1)
    learnt += sum(p.numel() for p in bert.parameters())
    assert scale.LEARNT["align"] == pytest.approx(learnt, rel=0.1)


@pytest.fixture
def told(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["simulate_scale", *arguments])
        scale.main()
        return capsys.readouterr().out

    return run


def test_the_script_tells_as_json_what_it_shows_as_a_table(told):
    rows = json.loads(told("--json", "--gpus", "8", "16"))
    assert len(rows) == 2 * len(PLANS)
    assert {row["bottleneck"] for row in rows} <= rows[0]["limits_s"].keys()
    assert "Ten million clips" in told("--gpus", "8", "--work", "align")


def test_the_table_in_the_docs_is_what_the_script_tells(told):
    page = (Path(__file__).parents[2] / "docs/scale.md").read_text()
    table = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in page.splitlines()
        if line.startswith(("| align ", "| answer "))
    ]
    rows = json.loads(told("--json"))
    assert len(table) == len(rows)
    for cells, row in zip(table, rows, strict=True):
        named = [row["work"], row["stored"], str(row["read"]), str(row["gpus"])]
        assert cells[:4] == named
        assert cells[5] == row["bottleneck"]
        measures = (row["step_s"], row["epoch_h"], row["gpu_h"], row["bytes"] / 1e12)
        for cell, found in zip((cells[4], *cells[7:10]), measures, strict=True):
            assert float(cell) == pytest.approx(found, rel=0.08)


def test_the_limits_are_drawn_for_each_number_of_gpus(told, tmp_path):
    told("--json", "--gpus", "8", "256", "--plot", str(tmp_path / "scale.svg"))
    drawn = (tmp_path / "scale.svg").read_text()
    assert drawn.count("GPUs") >= 2


def test_any_rate_can_be_set(told):
    slow, fast = (
        json.loads(told("--json", "--gpus", "8", "--set", f"cores={cores}"))[0] for cores in (4, 99)
    )
    assert (slow["bottleneck"], fast["bottleneck"]) == ("decoding", "arithmetic")


@pytest.mark.parametrize("wrong", ["core=4", "cores=many", "cores"])
def test_a_rate_that_is_none_is_refused_with_those_there_are(told, wrong):
    with pytest.raises(SystemExit, match="give name=number, a name of clips, clip_bytes"):
        told("--set", wrong)
