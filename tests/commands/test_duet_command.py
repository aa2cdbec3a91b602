"""Watched films that are scored, as a user types it."""

import json

import pytest

from mmavlm import evaluate
from mmavlm.metrics.duet import dense_captions
from mmavlm.metrics.duet.files import write_values
from mmavlm.metrics.duet.watched import Event, EventTruth, HighlightTruth, Said, Watched

SECONDS = 12
PEAKS = {"q0": (3, 5), "q1": (7, 8), "q2": (1, 2)}  # where each film is about what is asked


def film(name, start, end):
    """A film with scores that rise where it is about what is asked, and a reply at the first."""
    curve = tuple(0.9 if start <= t <= end else 0.1 + t / 100 for t in range(SECONDS))
    times = tuple(map(float, range(SECONDS)))
    scores = {"relevance": curve, "informative": curve}
    replies = (Said(float(start), "a dog barks"), Said(11.0, "a dog barks"))
    return Watched(name, float(SECONDS), times, scores, replies, (Said(0.0, "what?"),))


def split(folder, prefix, watched=PEAKS):
    """The files of a split: watched films, their spans with answers, their highlights."""
    write_values(folder / f"{prefix}.jsonl", [film(q, *PEAKS[q]) for q in watched])
    spans = [
        {"question_id": q, "video": f"{prefix} {q}", "answer": [{"content": "a dog", "time": span}],
         "conversation": [{"role": "user", "content": "what?", "time": 0}]}
        for q, span in PEAKS.items()
    ]  # fmt: skip
    (folder / f"{prefix}_spans.json").write_text(json.dumps(spans))
    rated = [
        HighlightTruth(q, f"{prefix} {q}", SECONDS, (end // 2,), ((4, 4, 1),))
        for q, (_, end) in PEAKS.items()
    ]
    write_values(folder / f"{prefix}_clips.jsonl", rated)


@pytest.fixture
def splits(tmp_path):
    split(tmp_path, "val")
    split(tmp_path, "test", ["q0", "q1"])
    return tmp_path


SPANS = ["truth=test_spans.json", "val_predictions=val.jsonl", "val_truth=val_spans.json"]
CLIPS = ["truth=test_clips.jsonl", "val_predictions=val.jsonl", "val_truth=val_clips.jsonl"]


def scored(run, folder, *arguments):
    code = run(evaluate, "predictions=test.jsonl", *arguments, "hydra.run.dir=out")
    assert code == 0
    metrics = json.loads((folder / "out/metrics.json").read_text())
    told = json.loads((folder / "out/duet.json").read_text())
    assert {f"test/{name}": value for name, value in told["scores"].items()} == metrics
    return told


def test_a_cut_is_chosen_on_validation_and_told_with_what_was_not_watched(run, splits, capsys):
    told = scored(run, splits, "task=grounding", *SPANS)
    # every cut of two films is right, and the third was not watched
    assert told["scores"]["grounding/miou"] == pytest.approx(2 / 3)
    assert told["scores"]["grounding/iou50"] == pytest.approx(2 / 3)
    chosen = told["chosen"]
    assert chosen["split"] == "val"
    assert (chosen["by"], chosen["value"], chosen["questions"]) == ("miou", 1.0, 3)
    assert (told["chosen_on"], told["missing"], told["unasked"]) == ("val.jsonl", ["q2"], [])
    said = capsys.readouterr()
    assert "chosen on val: miou 1.000 over 3 questions" in said.out
    assert "mean IoU of frames" in said.out
    assert "questions that were not watched, and count as wrong (1): q2" in said.err


def test_a_setting_that_is_given_is_not_said_to_be_chosen(run, splits, capsys):
    told = scored(run, splits, "task=grounding", SPANS[0], "window=0", "threshold=0.5")
    assert told["chosen"]["split"] == "given"
    assert told["chosen"]["setting"] == {"window": 0, "threshold": 0.5}
    assert told["chosen_on"] is None
    assert "window=0 threshold=0.5, as given" in capsys.readouterr().out


def test_one_setting_may_be_given_and_the_other_chosen(run, splits):
    told = scored(run, splits, "task=grounding", *SPANS, "window=5", "by=span_miou")
    assert told["chosen"]["setting"]["window"] == 5
    assert told["chosen"]["by"] == "span_miou"


def test_highlights_are_scored_with_the_window_chosen_on_validation(run, splits):
    told = scored(run, splits, "task=highlights", *CLIPS)
    assert told["chosen"]["by"] == "very_good_map"
    assert told["scores"]["highlights/very_good_hit1"] == pytest.approx(2 / 3)
    assert scored(run, splits, "task=highlights", CLIPS[0], "window=1")["chosen"]["setting"] == 1


def test_speaking_is_scored_by_replies_or_by_a_rule(run, splits):
    replies = scored(run, splits, "task=speaking", SPANS[0])
    assert replies["chosen"] is None
    # in each of two films the first of two replies is at the event; a third has an event alone
    assert replies["scores"]["speaking/speaking_f1"] == pytest.approx(2 * 2 / (4 + 3))
    assert replies["scores"]["speaking/duplicates"] == 0.5
    rule = scored(run, splits, "task=speaking", *SPANS)
    assert rule["chosen"]["by"] == "speaking_f1"
    assert rule["scores"]["speaking/speaking_f1"] == pytest.approx(2 * 2 / (2 + 3))
    given = scored(run, splits, "task=speaking", SPANS[0], "threshold=1.5",
                   "head=[relevance,informative]", "pause_s=5")  # fmt: skip
    assert given["chosen"]["setting"]["heads"] == ["relevance", "informative"]
    assert given["scores"]["speaking/speaking_f1"] == pytest.approx(2 * 2 / (2 + 3))


def test_answers_are_judged_while_their_evidence_is_seen(run, splits):
    told = scored(run, splits, "task=magqa", SPANS[0], "judge=overlap")
    # "a dog barks" and "a dog" have an F1 of 4/5, which is 4 of 5; a film not watched has 1
    assert told["scores"]["magqa/in_span_score"] == pytest.approx((4 + 4 + 1) / 3)
    (verdict,) = map(json.loads, (splits / "out/verdicts.jsonl").read_text().splitlines())
    assert (verdict["question_id"], verdict["reply"], verdict["score"]) == ("q0", "a dog barks", 4)


class _Mute:
    fingerprint = "a judge that gives no verdicts"

    def complete(self, request):
        from mmavlm.movies.generators.text import TextResult

        return TextResult("well …")


def test_replies_without_a_verdict_are_named_and_counted(splits, tmp_path, monkeypatch, caplog):
    from hydra import compose, initialize_config_dir

    from mmavlm.commands.duet import score_watched
    from mmavlm.core.config_files import config_dir

    monkeypatch.chdir(tmp_path)
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("score", ["predictions=test.jsonl", "task=magqa", SPANS[0]])
    told, _ = score_watched(config, tmp_path / "out", _Mute())
    # a reply in each of two films
    assert told["scores"]["magqa/unjudged"] == 2
    assert told["scores"]["magqa/in_span_score"] == 1
    assert "question q0: reply 'a dog barks' has no verdict" in caplog.text
    (row,) = map(json.loads, (tmp_path / "out/verdicts.jsonl").read_text().splitlines())
    assert "well" in row["error"]


def test_what_was_told_of_films_is_scored(run, splits, capsys, monkeypatch):
    pytest.importorskip("pycocoevalcap", reason="needs the extra [captions]")
    monkeypatch.setattr(dense_captions, "java", lambda: None)
    told = scored(run, splits, "task=dense_captions", SPANS[0], "format=json")
    said = capsys.readouterr()
    assert json.loads(said.out)["scores"] == told["scores"]
    assert said.err.count("there is no `java` command") == 1
    # replies are one caption from 0 to 11 s, beside spans of 2 and 1 s: none above .3
    assert told["scores"]["dense_captions/segment_f1"] == 0
    assert told["scores"]["dense_captions/soda_rouge_l_plain"] > 0


def test_a_folder_with_watched_films_may_be_given(run, splits):
    (splits / "runs").mkdir()
    (splits / "test.jsonl").rename(splits / "runs/watched.jsonl")
    arguments = ["task=grounding", SPANS[0], "window=0", "threshold=0.5"]
    assert run(evaluate, "predictions=runs", *arguments, "hydra.run.dir=out") == 0


def test_questions_that_the_truth_does_not_have_are_named(run, splits, capsys):
    split(splits, "test")
    asked = json.loads((splits / "test_spans.json").read_text())
    (splits / "test_spans.json").write_text(json.dumps(asked[:2]))
    told = scored(run, splits, "task=grounding", *SPANS)
    assert told["unasked"] == ["q2"]
    assert (
        "questions that the truth does not have, and are left out (1): q2"
        in capsys.readouterr().err
    )


GROUND = ["predictions=test.jsonl", "task=grounding"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*GROUND, "truth=gone"], "gone is no file"),
        (["predictions=gone", "task=grounding", *SPANS], "gone is no file"),
        (["task=grounding", SPANS[0]], "task=grounding needs predictions=… and truth=…"),
        (["truth=test_spans.json"], "truth=… is read with a task"),
        (GROUND, "task=grounding needs predictions=… and truth=…"),
        ([GROUND[0], SPANS[0]], "truth=… is read with a task, such as task=grounding"),
        ([GROUND[0], "task=grund", SPANS[0]], "task=grund is unknown; choose one of grounding"),
        ([*GROUND, SPANS[0]], "chosen on other films than the test's: give val_predictions=…"),
        ([*GROUND, SPANS[0], "window=2"], "or what you chose there yourself, such as window=6"),
        ([*GROUND, *SPANS[:2]], "give val_predictions=… and val_truth=… together, or neither"),
        ([*GROUND, SPANS[0], "val_predictions=test.jsonl", "val_truth=test_spans.json"],
         "3 films are in val_truth and in truth, such as test q0"),
        ([*GROUND, *SPANS, "by=hit"], "by=hit is unknown; choose one of miou, span_miou"),
        ([*GROUND, *SPANS, "window=-1"], "window must be at least 0, got -1"),
        ([*GROUND, *SPANS, "window=1.5"], "window must be a whole number, got 1.5"),
        ([*GROUND, *SPANS, "threshold=high"], "threshold must be a number, got 'high'"),
        ([*GROUND, *SPANS, "head=[a,b]"], "task=grounding reads one head, got head=['a', 'b']"),
        ([*GROUND, *SPANS, "head=a"], "has no scores of the head 'a', but of relevance"),
        ([*GROUND, *SPANS, "judge=overlap"], "task=grounding does not read judge"),
        ([*GROUND, *SPANS, "rule=whole"], "task=grounding does not read rule"),
        ([*GROUND, "truth=nothing.jsonl", "window=1", "threshold=0.5"],
         "none of 1 questions has an event to be found, such as 'q0'; of such questions only"),
        ([*GROUND, CLIPS[0], "window=1", "threshold=0.5"], "is of highlights"),
        ([GROUND[0], "task=highlights", SPANS[0], "window=1"], "has spans and no ratings"),
        ([GROUND[0], "task=magqa", SPANS[0]], "task=magqa has answers judged; say by whom"),
        ([GROUND[0], "task=magqa", SPANS[0], "judge=overlap", "aspects=[short,detail]"],
         "give one that single answers have, such as short"),
        ([GROUND[0], "task=dense_captions", *SPANS], "does not read val_predictions, val_truth"),
        (["compare=[a,b]", "task=grounding", *SPANS], "task=grounding needs predictions=…"),
        (["predictions=broken.jsonl", "task=grounding", *SPANS], "line 1: key 'scores' is missing"),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_message(run, splits, capsys, arguments, message):
    row = {"question_id": "q", "duration_s": 3, "times_s": []}
    (splits / "broken.jsonl").write_text(json.dumps(row))
    write_values(splits / "nothing.jsonl", [EventTruth("q0", "test q0", ())])
    assert run(evaluate, *arguments, "hydra.run.dir=out") == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (splits / "out/metrics.json").exists()


def test_where_nothing_happens_only_speaking_is_scored(run, splits, capsys):
    truths = [EventTruth("q0", "a", ()), EventTruth("q1", "b", (Event(7.0, 8.0),))]
    write_values(splits / "events.jsonl", truths)
    arguments = ["truth=events.jsonl", "threshold=0.5"]
    found = scored(run, splits, "task=grounding", *arguments, "window=0")
    assert (found["eventless"], found["unasked"]) == (["q0"], [])
    assert (found["scores"]["grounding/count"], found["scores"]["grounding/miou"]) == (1, 1)
    assert "nothing is to be found, and are left out (1): q0" in capsys.readouterr().err
    spoken = scored(run, splits, "task=speaking", *arguments)
    # three frames of the first film are spoken at in vain, and one of two of the other
    assert spoken["scores"]["speaking/speaking_precision"] == pytest.approx(1 / 5)
    assert (spoken["eventless"], spoken["scores"]["speaking/count"]) == ([], 2)


def test_events_of_our_own_format_are_truth_too(run, splits):
    truths = [EventTruth(q, f"test {q}", (Event(*map(float, span)),)) for q, span in PEAKS.items()]
    write_values(splits / "events.jsonl", truths)
    told = scored(run, splits, "task=speaking", "truth=events.jsonl")
    assert told["scores"]["speaking/speaking_recall"] == pytest.approx(2 / 3)
