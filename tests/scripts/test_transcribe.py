"""What is said in films is written beside them, once, and read as subtitles."""

import json
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

from mmavlm.core.errors import CheckpointError
from mmavlm.data import speech
from mmavlm.data.sound import SoundSource
from mmavlm.data.speech import transcribe, write_transcript
from mmavlm.data.subtitles import Subtitle, read_subtitles
from mmavlm.data.whisper import WhisperRecognizer, mean_log_prob

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

from transcribe import main, transcribe_all

SECONDS, RATE_HZ = 3, 16_000


def sounding(path, seconds=SECONDS):
    """A file with a sound, and no picture, whose name ends as that of a film may."""
    samples = np.random.default_rng(0).normal(0, 3000, round(seconds * RATE_HZ)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return path


class Heard:
    """A recogniser that always hears the same, and counts the samples it was given."""

    rate_hz = 8_000

    def __init__(self, *segments):
        self.segments = segments
        self.samples = []

    def __call__(self, samples):
        self.samples.append(len(samples))
        return self.segments


SEGMENTS = (
    Subtitle(1.0, 9.0, " and\n goes on"),
    Subtitle(-0.5, 1.0, "It begins"),
    Subtitle(0.5, 1.0, "  "),
    Subtitle(5.0, 6.0, "behind the end"),
)
SAID = (Subtitle(0.0, 1.0, "It begins"), Subtitle(1.0, 3.0, "and goes on"))


@pytest.mark.parametrize("kind", ["json", "srt"])
def test_what_is_written_is_read_as_subtitles_and_lies_within_the_film(tmp_path, kind):
    film, recognizer = sounding(tmp_path / "a.b.wav"), Heard(*SEGMENTS)
    path = write_transcript(film, transcribe(film, recognizer), kind)
    assert path.name == f"a.b.{kind}"
    assert read_subtitles(path) == SAID
    assert recognizer.samples == [SECONDS * recognizer.rate_hz]


def test_samples_decoded_part_by_part_are_those_of_the_entire_sound(tmp_path, monkeypatch):
    film, given = sounding(tmp_path / "a.wav", 2.75), []
    entire = SoundSource(film, Heard.rate_hz).clips(1, 2.75).clips[0]
    monkeypatch.setattr(speech, "PART_S", 0.5)
    recognizer = Heard()
    monkeypatch.setattr(Heard, "__call__", lambda _, samples: given.append(samples) or ())
    assert transcribe(film, recognizer) == []
    assert torch.equal(given[0], entire)


def test_a_file_that_is_read_before_the_one_written_is_named(tmp_path, capsys):
    film = sounding(tmp_path / "a.wav")
    (tmp_path / "a.srt").touch()
    assert transcribe_all([film], Heard(*SEGMENTS), "json") == 0
    assert "a.srt is read in its place" in capsys.readouterr().out


def test_silent_films_are_named_broken_ones_too_and_the_others_written(tmp_path, make_clip, capsys):
    silent, film = make_clip("silent.mp4", 3), sounding(tmp_path / "a.wav")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no film")
    recognizer = Heard(*SEGMENTS)
    assert transcribe_all([silent, broken, film], recognizer, "json") == 1
    shown = capsys.readouterr()
    assert "silent.mp4: no sound" in shown.out
    assert "a.json: 2 segments" in shown.out
    assert "broken.mp4" in shown.err
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["a.json"]


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    """A folder with a Whisper of random weights, whose words are single letters."""
    folder = tmp_path_factory.mktemp("whisper")
    letters = {chr(code): code - ord("a") for code in range(ord("a"), ord("z") + 1)}
    (folder / "vocab.json").write_text(json.dumps({**letters, "<|endoftext|>": 26}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = WhisperTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    control = ["<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>",
               "<|notimestamps|>"]  # fmt: skip
    times = [f"<|{0.02 * k:.2f}|>" for k in range(1501)]
    tokenizer.add_special_tokens({"additional_special_tokens": control})
    tokenizer.add_tokens(times)
    ids = dict(zip(control, tokenizer.convert_tokens_to_ids(control), strict=True))
    eos, start = 26, ids["<|startoftranscript|>"]
    sizes = {
        "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16,
        "max_target_positions": 24,
    }  # fmt: skip
    common = {"pad_token_id": eos, "bos_token_id": eos, "eos_token_id": eos,
              "decoder_start_token_id": start}  # fmt: skip
    torch.manual_seed(0)
    config = WhisperConfig(vocab_size=len(tokenizer), **sizes, **common)
    model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        **common, max_length=24, no_timestamps_token_id=ids["<|notimestamps|>"],
        is_multilingual=True, lang_to_id={"<|en|>": ids["<|en|>"]},
        task_to_id={"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]},
        max_initial_timestamp_index=50, return_timestamps=True,
    )  # fmt: skip
    model.save_pretrained(folder)
    WhisperProcessor(WhisperFeatureExtractor(), tokenizer).save_pretrained(folder)
    return folder


def test_a_whisper_of_a_folder_writes_what_it_hears_and_leaves_alone_what_is_there(
    whisper, tmp_path, capsys
):
    film = sounding(tmp_path / "a.wav")
    given = [str(film), "--model", str(whisper), "--language", "en"]
    assert main([*given, "--least-log-prob", "-1000"]) == 0
    said = read_subtitles(tmp_path / "a.json")
    assert said
    assert all(0 <= s.start_s < s.end_s <= SECONDS for s in said)
    before = (tmp_path / "a.json").stat().st_mtime_ns
    assert main(given) == 0
    assert "0 films to transcribe" in capsys.readouterr().out
    assert (tmp_path / "a.json").stat().st_mtime_ns == before
    assert main([*given, "--least-log-prob", "-0.001", "--overwrite"]) == 0
    assert read_subtitles(tmp_path / "a.json") == ()


def test_a_long_sound_is_heard_to_its_end_in_order(whisper):
    recognizer = WhisperRecognizer(str(whisper), language="en", least_log_prob=-1000)
    samples = torch.randn(40 * RATE_HZ, generator=torch.Generator().manual_seed(0)) / 10
    said = recognizer(samples)
    assert any(s.end_s > 30 for s in said)
    assert all(0 <= s.start_s <= s.end_s <= 60 for s in said)


def test_the_mean_is_over_the_tokens_of_the_segment_alone():
    scores = tuple(torch.tensor([0.0, -5.0 * k]) for k in range(4))
    result = {"scores": scores, "sequences": torch.tensor([9, 9, 0, 0, 1, 1])}
    segment = {"tokens": torch.tensor([1, 1]), "idxs": (4, 6), "result": result}
    expected = sum(s.log_softmax(-1)[1] for s in scores[2:]) / 2
    assert mean_log_prob(segment) == pytest.approx(float(expected))


def test_the_scores_of_a_segment_are_those_its_tokens_were_chosen_by(whisper):
    recognizer = WhisperRecognizer(str(whisper), language="en")
    samples = torch.randn(30 * RATE_HZ, generator=torch.Generator().manual_seed(0)) / 10
    heard = recognizer._heard(samples)
    assert heard
    for segment in heard:
        scores = torch.stack(list(segment["result"]["scores"]))
        best = scores.log_softmax(-1).max(-1)
        at = next(
            at for at in range(len(best.indices))
            if torch.equal(best.indices[at : at + len(segment["tokens"])], segment["tokens"])
        )  # fmt: skip
        chosen = best.values[at : at + len(segment["tokens"])]
        assert mean_log_prob(segment) == pytest.approx(float(chosen.mean()), rel=1e-5)


def test_a_folder_without_a_whisper_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        WhisperRecognizer(str(tmp_path / "nowhere"))
