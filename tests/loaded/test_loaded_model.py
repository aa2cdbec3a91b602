"""`mmavlm.load`: the answers are those of the commands, and mistakes are told as they tell them."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

import mmavlm
from mmavlm import export, predict
from mmavlm.core.config_files import config_dir
from mmavlm.core.errors import CheckpointError, ConfigError, VideoError
from mmavlm.data.dataset import VideoDataset

PROMPT = "what is the genre of the movie?"
CHOICES = ["comedy", "action"]
UNTRAINED = {
    "experiment": "zero_shot_own_videos", "model": "tiny", "init.allow_random": True,
    "data.num_frames": 4, "stage.min_new_tokens": 2, "stage.max_new_tokens": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def model(trained):
    return mmavlm.load(trained)


@pytest.fixture(scope="module")
def clips(films):
    return sorted((films / "lvu/videos").glob("*.mp4"))[:3]


def printed(run, capsys, *arguments):
    """What `predict` prints as JSON."""
    capsys.readouterr()
    assert run(predict, *arguments, "format=json") == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def asked_of(trained, clip):
    """The question about a clip on the command line."""
    best = trained / "checkpoints/best.ckpt"
    return f"checkpoint={best}", f"video={clip}", f"prompt='{PROMPT}'"


def same(answer, row):
    """An answer object says what a printed row says."""
    assert [one.text for one in answer.answers] == [one["answer"] for one in row["answers"]]
    for one, other in zip(answer.answers, row["answers"], strict=True):
        assert one.log_prob == pytest.approx(other["log_prob"], rel=1e-4)
        assert one.probability == pytest.approx(other["probability"], rel=1e-3)


@pytest.mark.parametrize("candidates", [None, CHOICES])
def test_an_answer_is_what_predict_prints(model, trained, clips, run, capsys, candidates):
    given = [] if candidates is None else [f"candidates=[{','.join(candidates)}]"]
    row = printed(run, capsys, *asked_of(trained, clips[0]), *given)
    answer = model.ask(clips[0], PROMPT, candidates=candidates)
    same(answer, row)
    assert (answer.text, answer.film) == (row["answers"][0]["answer"], clips[0])
    assert str(answer) == answer.text
    assert 0 <= answer.start_s < answer.end_s <= 4
    assert len(answer.times_s) == 4


def test_a_file_a_run_and_an_exported_folder_are_one_model(model, trained, clips, run, tmp_path):
    best = trained / "checkpoints/best.ckpt"
    assert run(export, f"checkpoint={best}", f"to={tmp_path}/model") == 0
    expected = model.ask(clips[0], PROMPT, candidates=CHOICES)
    for place in (str(best), tmp_path / "model"):
        found = mmavlm.load(place, device="cpu").ask(clips[0], PROMPT, candidates=CHOICES)
        assert found.answers == expected.answers


def test_a_name_on_the_hub_is_loaded_at_its_revision(
    model, trained, clips, run, tmp_path, monkeypatch
):
    assert run(export, f"checkpoint={trained}/checkpoints/best.ckpt", f"to={tmp_path}/model") == 0
    asked = []

    def fetch(name, *, revision, allow_patterns):
        asked.append((name, revision))
        return str(tmp_path / "model")

    monkeypatch.setattr("mmavlm.weights.pretrained.snapshot_download", fetch)
    theirs = mmavlm.load("someone/a-model", revision="v1")
    assert asked == [("someone/a-model", "v1")]
    found = theirs.ask(clips[0], PROMPT, candidates=CHOICES)
    assert found.answers == model.ask(clips[0], PROMPT, candidates=CHOICES).answers


def test_a_run_without_a_best_checkpoint_gives_its_last(trained, tmp_path, clips):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / "checkpoints/best.ckpt").unlink()
    assert mmavlm.load(run).ask(clips[0], PROMPT, candidates=CHOICES).text in CHOICES
    (run / "checkpoints/last.ckpt").unlink()
    with pytest.raises(
        CheckpointError, match=r"expected best.ckpt or last.ckpt: let the run go on"
    ):
        mmavlm.load(run)


def test_several_prompts_share_a_film_which_is_decoded_once(model, clips, monkeypatch):
    decoded, read = [], VideoDataset.__getitem__
    monkeypatch.setattr(
        VideoDataset, "__getitem__", lambda self, at: decoded.append(at) or read(self, at)
    )
    prompts = [PROMPT, "who is she?"]
    answers = model.ask(clips[:2], prompts, candidates=CHOICES)
    assert len(decoded) == 2
    assert [(a.film, a.prompt) for a in answers] == [
        (film, prompt) for film in clips[:2] for prompt in prompts
    ]
    for answer in answers:
        alone = model.ask(answer.film, answer.prompt, candidates=CHOICES)
        assert alone.log_prob == pytest.approx(answer.log_prob, rel=1e-4)
    assert model.ask(clips[0], []) == []


def test_a_picture_is_asked_about_as_a_film_of_one_frame(model, tmp_path):
    Image.new("RGB", (20, 10), (200, 0, 0)).save(tmp_path / "red.png")
    answer = model.ask(tmp_path / "red.png", PROMPT, candidates=CHOICES)
    assert answer.times_s == (0.0,)
    assert model.explain(answer).answer == answer.text


def test_settings_are_those_of_the_command(model, trained, clips, run, capsys):
    set_anew = ["num_answers=2", "stage.num_beams=3", "data.num_frames=3", "contrast=no_film"]
    row = printed(run, capsys, *asked_of(trained, clips[0]), *set_anew)
    settings = {"stage.num_beams": 3, "data.num_frames": 3}
    answer = model.ask(clips[0], PROMPT, num_answers=2, contrast="no_film", **settings)
    same(answer, row)
    assert len(answer.answers) == 2
    assert len(answer.times_s) == 3
    assert len(model.ask(clips[0], PROMPT).times_s) == 4, "of that call alone"


def test_a_film_is_asked_about_while_it_is_watched_as_predict_prints(
    model, trained, clips, run, capsys
):
    capsys.readouterr()
    stream = ["stream_fps=2", "every_s=1.5", "candidates=[comedy,action]", "format=json"]
    assert run(predict, *asked_of(trained, clips[0]), *stream) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    answers = [*model.ask_along(clips[0], PROMPT, fps=2, every_s=1.5, candidates=CHOICES)]
    assert [answer.end_s for answer in answers] == [row["at_s"] for row in rows]
    assert len(rows) == 3
    for answer, row in zip(answers, rows, strict=True):
        same(answer, row)
    assert model.explain(answers[-1]).answer == answers[-1].text
    with pytest.raises(ConfigError, match="stream_fps must be above 0"):
        model.ask_along(clips[0], PROMPT, fps=0)
    with pytest.raises(VideoError, match=r"gone.mp4 does not exist"):
        model.ask_along("gone.mp4", PROMPT)


@pytest.mark.parametrize("text", ["what is ${seed}?", "a \\${b} 'c', \"d\"=[e]", "{}", "null"])
def test_texts_are_taken_as_they_stand(model, clips, text):
    answer = model.ask(clips[0], text, candidates=[text, "another"])
    assert answer.prompt == text
    assert {one.text for one in answer.answers} == {text, "another"}
    assert model.explain(answer).explanation.prompt == text


def test_pretrained_weights_alone_are_asked_by_an_experiment(clips):
    torch.manual_seed(0)
    model = mmavlm.load(**UNTRAINED)
    assert isinstance(model.ask(clips[0], PROMPT).text, str)
    assert repr(model).startswith("<mmavlm model zero_shot_own_videos: ")
    assert repr(model).endswith(" million weights, on cpu>")


@pytest.mark.parametrize(("settings", "message"), [
    ({"num_answer": 3}, "did you mean num_answers=3"),
    ({"stage.num_beam": 3}, "did you mean stage.num_beams=3"),
    ({"contrast": "noize"}, "contrast=noize is no choice; nearest are noise"),
    ({"memory.length": 3}, "would change the model, which is built already; give it to mmavlm"),
    ({"video": "a.mp4"}, "video=… is no setting here; give the film first: ask"),
    ({"explain": True}, "give the answer to explain"),
    ({"num_answers": {3}}, "a setting is {3}, of type set; give None, a number, a text"),
    ({"candidates": "comedy"}, "candidates takes a list"),
])  # fmt: skip
def test_mistakes_in_settings_are_told(model, clips, settings, message):
    with pytest.raises(ConfigError) as told:
        model.ask(clips[0], PROMPT, **settings)
    assert message in str(told.value)


def test_mistakes_in_films_and_prompts_are_told_and_nothing_is_printed(
    model, clips, tmp_path, capsys
):
    (tmp_path / "broken.mp4").write_bytes(b"none")
    (tmp_path / "beep.wav").touch()
    with pytest.raises(VideoError, match=r"gone.mp4 does not exist; give the path"):
        model.ask("gone.mp4", PROMPT)
    with pytest.raises(VideoError, match=r"broken.mp4 cannot be asked 'what is the genre"):
        model.ask(tmp_path / "broken.mp4", PROMPT)
    with pytest.raises(ConfigError, match="prompt is empty; ask something"):
        model.ask(clips[0], " ")
    with pytest.raises(ConfigError, match="prompt is 3; give a text"):
        model.ask(clips[0], [3])
    with pytest.raises(ConfigError, match="is a sound, and questions are asked about films"):
        model.ask(tmp_path / "beep.wav", PROMPT)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("name", "settings", "error", "message"), [
    ("gone.ckpt", {}, CheckpointError, "checkpoint gone.ckpt does not exist; give the path"),
    ("outputs/gone/best.ckpt", {}, CheckpointError, "does not exist; give the path"),
    (None, {}, ConfigError, "no checkpoint is given; say checkpoint="),
    (None, {"experiment": "zero_shot_own_vidoes"}, ConfigError, "zero_shot_own_videos"),
    (None, {**UNTRAINED, "init.allow_random": False}, ConfigError, "init.allow_random"),
    (None, {**UNTRAINED, "data.numframes": 3}, ConfigError, "did you mean data.num_frames=3"),
    (None, {**UNTRAINED, "device": "cuda:99"}, ConfigError, "device='cuda:99' is not there"),
    (None, {**UNTRAINED, "device": "disk"}, ConfigError, "device='disk' is not there"),
    (None, {**UNTRAINED, "dtype": "int8"}, ConfigError, "dtype='int8' is unknown; choose auto"),
    (None, {**UNTRAINED, "model": "instructblip_vicuna", "llm.quantization": "8bit",
            "dtype": "float16"}, ConfigError, "that llm.quantization=8bit holds; leave"),
    (None, {"checkpoint": "a.ckpt"}, ConfigError, "give the name first: mmavlm.load"),
    (None, {**UNTRAINED, "fusion": "prompt_to_visual", "fusion.heads": 7}, ConfigError, "heads"),
])  # fmt: skip
def test_what_cannot_be_loaded_is_told(name, settings, error, message):
    with pytest.raises(error) as told:
        mmavlm.load(name, **settings)
    assert message in str(told.value)


def test_a_model_of_stage_one_answers_nothing_and_says_so(clips):
    model = mmavlm.load(experiment="webvid_alignment", model="tiny", **{"init.allow_random": True})
    with pytest.raises(ConfigError, match="is of stage 1, which has no LLM; give one of stage 2"):
        model.ask(clips[0], PROMPT)


@pytest.mark.parametrize("dtype", ["bfloat16", torch.float16])
def test_weights_are_of_the_dtype_that_is_asked_for(trained, model, clips, dtype):
    half = mmavlm.load(trained, device="cpu", dtype=dtype)
    kinds = {p.dtype for p in half.backbone.parameters()}
    assert kinds == {getattr(torch, str(dtype).removeprefix("torch."))}
    expected = model.ask(clips[0], PROMPT, candidates=CHOICES)
    found = half.ask(clips[0], PROMPT, candidates=CHOICES)
    assert found.log_prob == pytest.approx(expected.log_prob, rel=0.1)


def test_the_fence_holds_for_a_checkpoint_of_somebody_else(trained, tmp_path, clips):
    checkpoint = torch.load(trained / "checkpoints/best.ckpt", weights_only=True)
    overrides = checkpoint["mmavlm"]["overrides"]
    checkpoint["mmavlm"]["overrides"] = ["backbone._target_=os.system", *overrides]
    torch.save(checkpoint, tmp_path / "theirs.ckpt")
    with pytest.raises(CheckpointError, match="is not a part of this library"):
        mmavlm.load(tmp_path / "theirs.ckpt")


@pytest.mark.filterwarnings(r"ignore:\s*version_base")
def test_hydra_is_left_as_the_program_around_has_it(trained, clips):
    with initialize_config_dir(str(config_dir()), version_base="1.1"):
        model = mmavlm.load(trained)
        assert model.ask(clips[0], PROMPT, candidates=CHOICES).text in CHOICES
        assert compose("train", ["model=tiny"]).seed == 42
    assert not GlobalHydra.instance().is_initialized()


def test_an_explanation_is_what_predict_writes(model, trained, clips, run, tmp_path):
    asked = asked_of(trained, clips[0])
    assert run(predict, *asked, "candidates=[comedy,action]", "explain=true") == 0
    why = model.explain(model.ask(clips[0], PROMPT, candidates=CHOICES))
    image, numbers = why.save(tmp_path / "why/here")
    expected = json.loads((tmp_path / f"{clips[0].stem}_explained.json").read_text())
    found = json.loads(numbers.read_text())
    assert found.keys() == expected.keys()
    assert (found["answer"], found["stretches"]) == (expected["answer"], expected["stretches"])
    for name in ("slots", "changes", "patch_attention"):
        one, other = torch.tensor(found[name]), torch.tensor(expected[name])
        assert torch.allclose(one, other, atol=1e-4)
    said = [[one["answer"] for one in told["otherwise"]] for told in (found, expected)]
    assert said[0] == said[1]
    assert image.read_bytes().startswith(b"\x89PNG")
    assert all(sentence in repr(why) for sentence in why.sentences)


def test_another_text_is_explained_and_an_empty_one_refused(model, clips):
    answer = model.ask(clips[0], PROMPT)
    assert model.explain(answer, "a horse", stretches=0).explanation.stretches == ()
    with pytest.raises(ConfigError, match="is empty, so there is nothing to explain"):
        model.explain(answer, " ")
    with pytest.raises(ConfigError, match="cannot be cut into 9 stretches"):
        model.explain(answer, "a horse", stretches=9)


def test_importing_the_package_waits_for_nothing_heavy():
    code = (
        "import sys, mmavlm; assert mmavlm.__version__[0].isdigit(); dir(mmavlm);"
        "print(*{'torch', 'hydra', 'transformers', 'numpy', 'omegaconf'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
    assert {"load", "register_auto_classes"} <= {*dir(mmavlm)}
    assert not hasattr(mmavlm, "laod")
