"""What is true of films that are watched live, from every set that says so to a file and back."""

import json

import pytest

from mmavlm.data.datamodule import VideoDataModule
from mmavlm.data.mix import MixedDataModule
from mmavlm.data.readers import (
    CharadesSTAReader,
    DenseCaptionReader,
    GroundingReader,
    MAGQAReader,
    QVHighlightsReader,
)
from mmavlm.metrics.duet.files import read_events, read_highlights, truth_of, write_values
from mmavlm.metrics.duet.tasks import task_of
from mmavlm.metrics.duet.watched import HighlightTruth

CAPTION = {"time": 3.1, "text": "She stirs.", "timespan": [1, 5]}
ASKED = {"role": "user", "time": 1.2, "content": "What does she do?"}
ANSWER = {"role": "assistant", "time": 4, "timespan": [2, 6], "content": "She stirs."}
RATED = {"qid": 8, "query": "a dog runs", "vid": "v", "duration": 12, "relevant_windows": [[4, 8]],
         "relevant_clip_ids": [2, 3], "saliency_scores": [[4, 3, 1], [0, 2, 4]]}  # fmt: skip
SEARCH = {"question_id": "q1", "video": "v.mp4", "timestamps": [[1.5, 4], [9, 12]],
          "conversation": [{"role": "user", "time": 0, "content": "she stirs"}]}  # fmt: skip
SEVERAL = {"question_id": "q2", "video": "v.mp4", "conversation": [ASKED],
           "answer": [{"content": "She stirs.", "time": [2, 6]}]}  # fmt: skip
# a reader, a test in the format of its set, by what its truth is scored, who reads that file, too
SETS = {
    "captions": (DenseCaptionReader, {"v.mp4": {"0": [CAPTION]}}, "speaking", None),
    "questions": (
        MAGQAReader, [{"video_uid": "v.mp4", "conversation": [ASKED, ANSWER]}], "speaking", None
    ),
    "published questions": (MAGQAReader, [SEVERAL], "speaking", read_events),
    "searches": (GroundingReader, [SEARCH], "grounding", read_events),
    "charades": (CharadesSTAReader, [SEARCH], "grounding", read_events),
    "highlights": (QVHighlightsReader, [RATED], "highlights", read_highlights),
}  # fmt: skip


def data_of(root, kind):
    reader, rows, _, _ = SETS[kind]
    (root / "videos").mkdir(parents=True, exist_ok=True)
    (root / "videos/v.mp4").touch()
    (root / "test.json").write_text(json.dumps(rows))
    return VideoDataModule(reader(test="test.json"), root)


@pytest.mark.parametrize("kind", SETS)
def test_what_is_true_of_a_split_comes_back_from_its_file(tmp_path, kind):
    _, _, task, published = SETS[kind]
    data = data_of(tmp_path, kind)
    ((name, truths),) = data.truths("test").items()
    assert task_of(name, truths) == task
    assert [truth.question_id for truth in truths] == [i.item_id for i in data.items("test")]
    write_values(tmp_path / "truth.jsonl", truths)
    read = read_highlights if isinstance(truths[0], HighlightTruth) else read_events
    assert read(tmp_path / "truth.jsonl") == truths
    if published:
        assert published(tmp_path / "test.json") == truths


def test_truths_of_a_mix_have_the_names_that_its_questions_have(tmp_path):
    sets = {kind: data_of(tmp_path / kind, kind) for kind in ("searches", "highlights")}
    mix = MixedDataModule(sets)
    found = mix.truths("test")
    assert found.keys() == {item.task for item in mix.items("test")}
    (search,) = found["searches/grounding"]
    assert (search.question_id, search.video_id) == ("searches/q1", "searches/v.mp4")


def test_a_set_without_truth_has_none(tmp_path):
    data = data_of(tmp_path, "highlights")
    secret = {key: RATED[key] for key in ("qid", "query", "vid", "duration")}
    (tmp_path / "test.json").write_text(json.dumps([secret]))
    assert data.truths("test") == {}


def test_a_row_that_is_no_truth_is_refused():
    with pytest.raises(ValueError, match="video_id"):
        truth_of({"question_id": "q", "events": []})
