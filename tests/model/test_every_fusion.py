"""Every fusion through every command: trained, resumed, tested, exported, asked, explained."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from mmavlm import evaluate, export, predict, train
from mmavlm.core.errors import ConfigError
from mmavlm.model.fusion import Fusion
from support import SMALL, random_batch, tiny_backbone

PUBLISHED = ("cross_attention", "feature_channel", "sequence_dimension")
FUSIONS = sorted(path.stem for path in (Path(__file__).parents[2] / "conf/fusion").glob("*.yaml"))
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in FUSIONS if name not in PUBLISHED]
PROMPT = "prompt='what is the genre of the movie?'"


def choices(fusion):
    published = ["alignment=mma_code", "aligned_frames=first_middle_last"]
    return [f"fusion={fusion}", *(published if fusion in PUBLISHED else [])]


@pytest.fixture
def settings(films, tmp_path):
    return [
        "experiment=lvu_genre", *SMALL, f"data.root={films}", "memory.length=2",
        f"data.cache={tmp_path}/cache", "data.crop=false", "data.flip=false", "resume=auto",
        "callbacks.step_checkpoint.every_n_steps=1", "callbacks.wait=null",
        "callbacks.throughput=null",
    ]  # fmt: skip


@pytest.mark.parametrize("fusion", [*PUBLISHED, *OTHERS])
def test_a_fusion_goes_through_all_commands(run, settings, films, tmp_path, capsys, fusion):
    settings = [*settings, *choices(fusion)]
    assert run(train, *settings, f"hydra.run.dir={tmp_path}/whole") == 0
    halfway = ["+callbacks.stop._target_=support.StopAtBatch", "+callbacks.stop.batch=1"]
    resumed = f"hydra.run.dir={tmp_path}/resumed"
    assert run(train, *settings, *halfway, resumed) != 0
    assert run(train, *settings, resumed) == 0
    ends = [
        torch.load(tmp_path / f"{name}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "resumed")
    ]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())

    best = tmp_path / "resumed/checkpoints/best.ckpt"
    tested = json.loads((tmp_path / "resumed/metrics.json").read_text())["test/text"]
    assert run(evaluate, f"checkpoint={best}", f"hydra.run.dir={tmp_path}/again") == 0
    again = json.loads((tmp_path / "again/metrics.json").read_text())["test/text"]
    assert again == pytest.approx(tested, rel=1e-4)

    assert run(export, f"checkpoint={best}", f"to={tmp_path}/model") == 0
    video, told = next((films / "lvu/videos").rglob("*.mp4")), []
    for checkpoint in (best, tmp_path / "model"):
        capsys.readouterr()
        asked = [f"checkpoint={checkpoint}", f"video={video}", PROMPT, "format=json"]
        assert run(predict, *asked) == 0
        told.append(json.loads(capsys.readouterr().out))
    assert told[0] == told[1]
    assert run(predict, *asked, "stream_fps=2", "every_s=1") == 0
    assert run(predict, *asked, "explain=true", "explain_to=why.png") == 0
    with Image.open("why.png") as picture:
        assert min(picture.size) > 100


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_language_model_sees_as_many_tokens_as_the_model_says(fusion):
    model = tiny_backbone(*choices(fusion)).eval()
    batch = random_batch((4, 2))
    tokens = model.video_tokens(model.vision.remember(model.watch(batch)))
    assert tokens.shape[1] == model.vision.num_tokens()
    assert model.vision.num_tokens() == 8 + (fusion == "sequence_dimension")
    assert f"({model.vision.num_tokens()} of the video" in model.check_lengths(4)


@pytest.mark.parametrize("fusion", PUBLISHED)
@pytest.mark.parametrize("missing", ["alignment=none", "alignment.levels=[low]"])
def test_a_fusion_without_the_alignment_it_reads_says_so_in_one_sentence(fusion, missing):
    with pytest.raises(Exception, match=rf"fusion={fusion} reads the feature") as refused:
        tiny_backbone(f"fusion={fusion}", missing)
    assert isinstance(refused.value.__cause__ or refused.value, ConfigError)


def test_a_fusion_of_ones_own_may_leave_both_places_alone():
    queries = torch.ones(1, 2, 3)
    assert Fusion().after(queries, None) is queries
    assert Fusion().num_tokens(2) == 2


@pytest.mark.parametrize("fusion", PUBLISHED)
def test_the_aligned_projection_learns_through_the_answers_too(fusion):
    """The published gradient of Wq has two paths: the fusion's, and the alignment's."""
    model = tiny_backbone(*choices(fusion)).eval()
    weight = model.alignment.video_projections["high"].weight
    gradients = []
    for answer, align in ((True, False), (False, True), (True, True)):
        model.zero_grad()
        sum(model(random_batch((4, 4)), answer=answer, align=align).values()).backward()
        gradients.append(weight.grad.clone())
    by_answers, by_alignment, together = gradients
    assert by_answers.any()
    assert by_alignment.any()
    torch.testing.assert_close(together, by_answers + by_alignment, atol=1e-6, rtol=1e-4)
