"""Small files in the formats of the hallucination benchmarks, about films that are there."""

import json
import shutil

from PIL import Image

from public_sets import write_json

ASPECTS = ("visual details", "object")


def write_benchmarks(root, films):
    """Each benchmark in a folder of its own below `root`, about four films or more."""
    return {name: write(root / name, films) for name, write in WRITERS.items()}


def write_videohallucer(root, films):
    for kind in ("object_relation", "temporal", "semantic_detail", "external_factual",
                 "external_nonfactual"):  # fmt: skip
        pairs = []
        for film in films[:2]:
            place(film, root / kind / "videos" / f"{film.stem}.mp4")
            video = f"{film.stem}.mp4"
            pairs.append({
                "basic": {"video": video, "question": "Is there a house?", "answer": "yes"},
                "hallucination": {"video": video, "question": "Is there a boat?", "answer": "no"},
                "type": "subject",
            })  # fmt: skip
        write_json(root / kind / f"{kind}.json", pairs)
    return root


def write_eventhallusion(root, films):
    for kind, name in (("entire", "entire"), ("interleave", "mix"), ("misleading", "misleading")):
        rows = []
        for number, film in enumerate(films[:2]):
            place(film, root / "videos" / kind / f"{name}_{number:03d}.mp4")
            asked = [
                {"type": "hallucination", "question": "Does it rain?", "answer": "No."},
                {"type": "hallucination", "question": "Is it day?", "answer": "Yes."},
            ]
            rows.append({"id": f"{name}_{number:03d}", "category": "pet", "length": "00:04",
                         "event_info": {}, "questions": asked[: number + 1]})  # fmt: skip
        write_json(root / "questions" / f"{name}_questions.json", rows)
    return root


def write_vidhalluc(root, films):
    for folder in ("ACH", "STH", "TSH"):
        for film in films[:2]:
            place(film, root / "data" / folder / f"{film.stem}.mp4")
    a, b = (film.stem for film in films[:2])
    choices = {"A": "they run", "B": "they jump", "C": "they sit", "D": "they sleep"}
    question = {"Question": "What happens?", "Choices": choices}
    write_json(root / "ach_binaryqa.json",
               {"1": [{"q": "Do they run?", "a": {a: "Yes", b: "No"}}]})  # fmt: skip
    write_json(root / "ach_mcq.json", {"1": {a: {**question, "Correct Answer": "A"},
                                             b: {**question, "Correct Answer": "BD"}}})  # fmt: skip
    write_json(root / "sth.json", {a: {"Scene change": "Yes", "Locations": "from a to b."},
                                   b: {"Scene change": "No", "Locations": "None"}})  # fmt: skip
    write_json(root / "tsh.json", {"1": {"video": a, "Question": "Action A. run. Action B. jump.",
                                         "Correct Answer": "BA"}})  # fmt: skip
    return root


def write_elv_halluc(root, films):
    rows = []
    for film, aspect in zip(films[:2], ASPECTS, strict=True):
        place(film, root / "videos" / f"{film.stem}.mp4")
        for kind, answer in (("ground_truth", "Yes"), ("in_video", "No"), ("out_video", "No")):
            rows.append({"video": f"{film.stem}.mp4", "part_nums": 4, "aspect": aspect,
                         "caption_type": kind, "question": f"Is this right? {kind}",
                         "ref_answer": answer})  # fmt: skip
    root.mkdir(parents=True, exist_ok=True)
    (root / "ELV_Halluc.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def write_hallusionbench(root, films):
    rows = [{"category": "VD", "subcategory": "map", "visual_input": "1", "set_id": "0",
             "figure_id": "0", "question_id": "0", "question": "?", "gt_answer": "1"}]  # fmt: skip
    for figure in ("0", "1"):
        picture = root / f"hallusion_bench/VD/video/0_{figure}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (96, 32), (40 * int(figure), 90, 90)).save(picture)
        for question, truth in (("0", "1"), ("1", "0")):
            rows.append({
                "category": "VD", "subcategory": "video", "visual_input": "1", "set_id": "0",
                "figure_id": figure, "sample_note": "ball", "question_id": question,
                "question": "Does the ball rise?", "gt_answer_details": "It rises.",
                "gt_answer": truth if figure == "0" else str(1 - int(truth)),
                "filename": f"./hallusion_bench/VD/video/0_{figure}.png",
            })  # fmt: skip
    write_json(root / "HallusionBench.json", rows)
    return root


def write_pope(root, films):
    (root / "pope").mkdir(parents=True, exist_ok=True)
    for film in films[:2]:
        place(film, root / "videos" / f"{film.stem}.mp4")
    for strategy in ("random", "popular", "adversarial"):
        rows = [
            {"question_id": number, "video": f"videos/{film.stem}.mp4",
             "text": f"Is there a {name} in the video?", "label": label}
            for number, (film, (name, label)) in enumerate(
                [(film, pair) for film in films[:2] for pair in (("house", "yes"), ("boat", "no"))]
            )
        ]  # fmt: skip
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (root / "pope" / f"pope_{strategy}.jsonl").write_text(lines)
    return root


def write_avhbench(root, films):
    (root / "json").mkdir(parents=True, exist_ok=True)
    for film, name in zip(films[:2], ("00006", "00006_swap"), strict=True):
        place(film, root / "video" / f"{name}.mp4")
        asked = [
            ("Video-driven Audio Hallucination", "Is the man making sound in the audio?", "Yes"),
            ("Video-driven Audio Hallucination", "Is the sofa making sound in the audio?", "No"),
            ("Audio-driven Video Hallucination", "Is the dog visible in the video?", "No"),
            ("AV Matching", "Do sound and picture match?", "No" if "swap" in name else "Yes"),
            ("AV Captioning", "Describe what you see and hear.", f"A man snores on {name}."),
        ]
        rows = [{"video_id": name, "task": task, "text": text, "label": label}
                for task, text, label in asked]  # fmt: skip
        write_json(root / "json" / f"{name}.json", rows)
    return root


def write_omnivchall(root, films):
    for film, name in zip(films[:2], ("11004", "v9"), strict=True):
        place(film, root / "videos" / f"{name}.mp4")
    asked = {"yn_question": "熊猫正在划船吗?", "yn_answer": "no", "yn_reasoning": "没有划桨。"}
    options = ["A. 红色", "B. 蓝色", "C. 其余内容均不正确"]
    chosen = {"mc_question": "围巾的颜色是什么?", "mc_option": options, "mc_answer": "A",
              "mc_reasoning": "红色。"}  # fmt: skip
    for file, types, row in (("s_ynqa", 3, asked), ("m_ynqa", [3, 7], asked),
                             ("s_mcqa", 8, chosen), ("m_mcqa", [1, 8], chosen)):  # fmt: skip
        rows = [{f"{file}_id": number, "video_id": name, "type_id": types, **row}
                for number, name in enumerate(("11004", "v9"), 1)]  # fmt: skip
        write_json(root / "test" / f"test_{file}.json", rows)
    return root


def write_haven(root, films):
    for film, name in zip(films[:2], ("Coin0001", "Coin0002"), strict=True):
        place(film, root / "videos" / f"{name}.mp4")
    asked = [
        ("Coin0001", "Binary-choice", "Do they sew?", "No"),
        ("Coin0001", "Binary-choice", "Do they cut?", "yes"),
        ("Coin0002", "Multiple-choice", "What is it? A. Cut -> tie. B. Sewing. C. Hair.", "A"),
        ("Coin0002", "Multiple-choice", "What is done? A. Sewing. B. Hair. C. Binding.", "C"),
        ("Coin0002", "Short-answer", "What is done?", "They bind it"),
    ]  # fmt: skip
    rows = [
        {"Index": number, "Question": question, "Answer": answer, "Causes": "Conflict with prior",
         "Aspects": ("Object", "Event")[number % 2], "Form": form, "Source Link": "https://x.org/a",
         "Begin": "0:29", "End": "0:40", "Video Path": video, "Group_id": f"group {video}"}
        for number, (video, form, question, answer) in enumerate(asked, 1)
    ]  # fmt: skip
    write_json(root / "test_data.json", rows)
    return root


def place(film, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(film, path)


WRITERS = {
    "videohallucer": write_videohallucer,
    "eventhallusion": write_eventhallusion,
    "vidhalluc": write_vidhalluc,
    "elv_halluc": write_elv_halluc,
    "hallusionbench": write_hallusionbench,
    "pope": write_pope,
    "avhbench": write_avhbench,
    "omnivchall": write_omnivchall,
    "haven": write_haven,
}
