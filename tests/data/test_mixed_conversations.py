"""Pictures, films and texts alone in one mix."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from mmavlm.data.datamodule import VideoDataModule
from mmavlm.data.mix import MixedDataModule
from mmavlm.data.readers import LlavaReader, VideoChatReader

LEVELS = (40, 200)


@pytest.fixture
def mix(tmp_path, make_clip):
    """Two pictures, two films and two texts alone, in two sets."""
    make_clip("films/a.mp4", 6)
    for level in LEVELS:
        picture = Image.fromarray(np.full((24, 32, 3), level, np.uint8))
        picture.save(tmp_path / f"{level}.png")
    said = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A bus."}]
    rows = [{"image": f"{level}.png", "conversations": said} for level in LEVELS]
    rows += [{"id": f"t{n}", "conversations": said} for n in range(2)]
    films = [{"video": "a.mp4", "QA": [{"q": "Who?", "a": "A cat."}] * 2}] * 2
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.json").write_text(json.dumps(rows))
        (tmp_path / f"films_{split}.json").write_text(json.dumps(films))
    named = {split: f"films_{split}.json" for split in ("train", "val", "test")}
    settings = {"num_frames": 3, "image_size": 16}
    sets = {
        "llava": VideoDataModule(LlavaReader(), tmp_path, **settings),
        "films": VideoDataModule(VideoChatReader(videos="films", **named), tmp_path, **settings),
    }

    def make(**settings):
        return MixedDataModule(sets, num_workers=0, image_size=16, **settings)

    return make


def test_batches_of_texts_alone_have_no_frames(mix):
    shown = {batch.task[0]: set() for batch in mix(batch_size=1).train_dataloader()}
    for batch in mix(batch_size=1).train_dataloader():
        (talk,) = batch.conversations
        frames = None if batch.frames is None else tuple(batch.frames.shape[:2])
        shown[batch.task[0]].add((tuple(m.kind for m in talk.media), frames))
        assert (frames is None) == (batch.frame_mask.numel() == 0)
    assert shown == {
        "llava/instruct": {(("picture",), (1, 1)), ((), None)},
        "films/instruct": {(("film",), (1, 3))},
    }


def test_a_picture_is_one_frame_beside_films_of_several(mix):
    (batch,) = mix(eval_batch_size=6, batch_size=6).val_dataloader()
    assert batch.frame_mask.sum(1).tolist() == [1, 1, 3, 3]
    assert batch.media_rows == [(0,), (1,), (), (), (2,), (3,)]
    for row, level in enumerate(LEVELS):
        assert torch.equal(batch.frames[row, 0], torch.full((3, 16, 16), level, dtype=torch.uint8))


def test_batches_of_alike_items_keep_texts_pictures_and_films_apart(mix):
    batches = mix(batch_size=2, group_by_length=True).train_dataloader()
    kinds = [{m.kind for talk in b.conversations for m in talk.media} for b in batches]
    assert sorted(map(sorted, kinds)) == [[], ["film"], ["picture"]]
