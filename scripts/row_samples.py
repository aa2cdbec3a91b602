"""Small sets of every public reader, for `fuzz_rows.py` to damage."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmavlm.data import readers
from mmavlm.data.readers.entries import SkippingReader

ROWS = 6
TIMES = {"start_s": 1, "end_s": 2.5}
YES = ("yes", "no")


@dataclass(frozen=True)
class Sample:
    """A set: its reader, the file that is damaged, what it holds, and what stands beside it.

    `unread` lists keys that the reader does not look at, `lists` those under which a list of texts
    may stand.
    """

    name: str
    reader: Callable[[], SkippingReader]
    path: str
    content: Any
    split: str = "test"
    task: Any = None
    beside: dict[str, Any] = field(default_factory=dict)
    unread: frozenset[str] = frozenset()
    lists: frozenset[str] = frozenset()

    def write(self, root: Path) -> None:
        """Write the set, whole, below a folder."""
        for path, content in {**self.beside, self.path: self.content}.items():
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(encoded(content, target.suffix).encode())


def encoded(content: Any, suffix: str) -> str:
    """Rows or entries as the text of a file of the suffix."""
    if suffix == ".json":
        return json.dumps(content, ensure_ascii=False)
    if suffix == ".jsonl":
        return "\n".join(json.dumps(row, ensure_ascii=False) for row in content)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, dict.fromkeys(key for row in content for key in row))
    writer.writeheader()
    writer.writerows(content)
    return text.getvalue()


def _rows(**of: Any) -> list[dict[str, Any]]:
    """Rows of which each has its number where texts say {}."""
    return [
        {k: v.replace("{}", str(i)) if isinstance(v, str) else v for k, v in of.items()}
        for i in range(ROWS)
    ]


def _entries(**of: Any) -> dict[str, Any]:
    return {f"entry{i}": row for i, row in enumerate(_rows(**of))}


def samples() -> list[Sample]:
    """One set, or two, of every public reader."""
    own = _rows(video="clips/film{}.mp4", prompt="what is it?", answer="a dog {}", id="row{}",
                task="animals", **TIMES)  # fmt: skip
    many = [{**row, "references": ["some dog", "one dog"]} for row in own]
    chosen = [{**row, "options": ["a dog", "a cat"], "answer": "a dog"} for row in own]
    captions = _rows(video="clips/film{}.mp4", caption="a dog barks {}", id="row{}", **TIMES)
    webvid = _rows(videoid="film{}", name="a dog barks {}", page_dir="page/{}")
    lvu = _entries(duration=120, num_frames=1200, genre="western", year="1990", subset="train")
    label = _entries(frame_length=40, class_name="tea {}")
    coin = _entries(num_frames_actual=40, target="boil {}", subset="training")
    qa = _entries(question="who sings {}?", answer="a man", video="film{}", frame_length=40)
    segment = _entries(caption="cut it {}", video="film{}", frame_length=40, segment="film{}_0",
                       start_time=1, end_time=3, duration=9.5)  # fmt: skip
    shown = [
        {"image_id": f"film{i}_0", "caption": f"cut it well {i}", "id": i} for i in range(ROWS)
    ]
    pope = _rows(question_id="{}", video="clips/film{}.mp4", text="is there a dog?", label="yes",
                 **TIMES)  # fmt: skip
    kinds = ("ground_truth", "in_video", "out_video")
    elv = [
        {"video": f"film{i // 3}", "aspect": "event order", "caption_type": kinds[i % 3],
         "ref_answer": YES[i % 2], "question": f"is it so, {i}?"}
        for i in range(2 * ROWS)
    ]  # fmt: skip
    events = [{"id": f"film{i}", "questions": _asked(i)} for i in range(ROWS)]
    figures = [
        {"category": "VD", "subcategory": "video", "visual_input": "1", "set_id": "0",
         "figure_id": f"{i}", "question_id": "0", "question": f"is it so, {i}?", "gt_answer": "1",
         "filename": f"film{i}.png"}
        for i in range(ROWS)
    ]  # fmt: skip
    pairs = [
        {side: {"video": f"film{i}.mp4", "question": f"{side} {i}?", "answer": YES[at]}
         for at, side in enumerate(("basic", "hallucination"))}
        for i in range(ROWS)
    ]  # fmt: skip
    binary = {f"pair{i}": [{"q": f"is it so, {i}?", "a": {f"clip{i}": "Yes"}}] for i in range(ROWS)}
    choice = {
        f"pair{i}": {f"clip{i}": {"Question": f"what, {i}?", "Choices": {"A": "one", "B": "two"},
                                  "Correct Answer": "A"}}
        for i in range(ROWS)
    }  # fmt: skip
    scenes = {f"clip{i}": {"Scene change": "Yes", "Locations": "here"} for i in range(ROWS)}
    order = {
        str(i): {"video": f"film{i}", "Question": f"which first, {i}?", "Correct Answer": "AB"}
        for i in range(ROWS)
    }
    question, youcook = ("{question}", "what happens?")
    answers = frozenset({"answer", "references", "options"})
    heard = _rows(video_id="{}", task="AV Matching", text="do they match?", label="Yes")
    typed = _rows(s_mcqa_id="{}", video_id="{}", type_id=3, mc_question="what?", mc_answer="A")
    typed = [{**row, "mc_option": ["A. one", "B. two"]} for row in typed]
    grouped = _rows(Index="{}", Question="is it so, {}?", Answer="Yes", Form="Binary-choice",
                    Causes="Conflict with prior", Aspects="Event", Group_id="{}",
                    **{"Video Path": "film{}"})  # fmt: skip
    return [
        Sample("own jsonl", _own, "train.jsonl", own, "train", lists=answers),
        Sample("own references", _own, "train.jsonl", many, "train", lists=answers),
        Sample("own options", _own, "train.jsonl", chosen, "train", lists=answers),
        Sample("own csv", _own, "train.csv", own, "train", lists=answers),
        Sample("own json", _own, "train.json", own, "train", lists=answers),
        Sample("captions jsonl", readers.CaptionReader, "captions/test.jsonl", captions),
        Sample("captions csv", readers.CaptionReader, "captions/test.csv", captions),
        Sample("webvid", readers.WebVidReader, "test.csv", webvid),
        Sample("lvu", readers.LVUReader, "lvu/annotation/train.json", lvu, "train",
               ["genre", "year"], unread=frozenset({"subset"})),
        Sample("movies", readers.MovieReader, "cuts/test.jsonl",
               [{**row, "task": "cuts"} for row in own], "test", "cuts",
               {"lvu/annotation/train.json": lvu}, lists=answers),
        Sample("labels", lambda: readers.LabelReader("tea", "tea", "which?", "class_name"),
               "tea/annotation/train.json", label, "train"),
        Sample("labels shared", lambda: readers.LabelReader(
            "coin", "coin", "which?", "target", count_key="num_frames_actual", shared="COIN.json"),
            "coin/annotation/COIN.json", coin, "train"),
        Sample("questions", lambda: readers.QuestionReader("msvd", question),
               "msvd/annotation/qa_test.json", qa, lists=frozenset({"options"})),
        Sample("references", lambda: readers.ReferenceReader("youcook2", youcook),
               "youcook2/annotation/cap_test.json", segment),
        Sample("references shown", lambda: readers.ReferenceReader("youcook2", youcook),
               "youcook2/annotation/coco_gt/cap_test.json", {"annotations": shown},
               beside={"youcook2/annotation/cap_test.json": segment}, unread=frozenset({"id"})),
        Sample("pope", readers.PopeReader, "pope/pope_random.jsonl", pope, task="random"),
        Sample("avhbench", readers.AVHBenchReader, "json/00006.json", heard),
        Sample("omnivchall", readers.OmniVCHallReader, "test/test_s_mcqa.json", typed, task="s_mc",
               lists=frozenset({"mc_option"})),
        Sample("haven", readers.HavenReader, "test_data.json", grouped),
        Sample("elv_halluc", readers.ELVHallucReader, "ELV_Halluc.jsonl", elv),
        Sample("eventhallusion", readers.EventHallusionReader, "questions/entire_questions.json",
               events, task="entire"),
        Sample("hallusionbench", readers.HallusionBenchReader, "HallusionBench.json", figures),
        Sample("videohallucer", readers.VideoHallucerReader, "temporal/temporal.json", pairs,
               task="temporal"),
        *(Sample(f"vidhalluc {task}", readers.VidHallucReader, f"{task}.json", content, task=task,
                 unread=frozenset({"Locations"}))
          for task, content in (("ach_binaryqa", binary), ("ach_mcq", choice), ("sth", scenes),
                                ("tsh", order))),
    ]  # fmt: skip


def _own() -> readers.OwnReader:
    return readers.OwnReader(closed=["animals"])


def _asked(number: int) -> list[dict[str, str]]:
    return [{"question": f"is it {one}, {number}?", "answer": one} for one in YES]
