"""Small annotations in the formats of the public sets, about films that are there already."""

import json
from pathlib import Path

BREAKFASTS = ("cereal", "fried egg", "tea")
SPLITS = ("train", "val", "test")


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def entries(films, frames):
    """The entries of each format for a few films, by the names of their files."""
    labels = [BREAKFASTS[i % len(BREAKFASTS)] for i in range(len(films))]
    breakfast = {
        film: {"duration": 4, "frame_length": frames, "class_name": label, "class_label": 0}
        for film, label in zip(films, labels, strict=True)
    }
    coin = {
        film: {"subset": "train", "duration": 4, "target": label, "num_frames_actual": frames}
        for film, label in zip(films, labels, strict=True)
    }
    questions = {
        f"{i:07d}": {
            "question": "What is shown?",
            "answer": label,
            "question_id": f"{i:07d}",
            "video": film,
            "frame_length": frames,
            "answer_type": "what",
        }
        for i, (film, label) in enumerate(zip(films, labels, strict=True))
    }
    captions = {
        str(i): {
            "image_id": f"{film}.avi",
            "caption": caption,
            "id": i,
            "video": film,
            "frame_length": frames,
        }
        for i, (film, caption) in enumerate(
            (film, caption) for film in films for caption in ("A man cooks.", "someone is cooking")
        )
    }
    segments = {
        f"{film}_{start:04d}_{start + 2:04d}": {
            "video": film,
            "segment": f"{film}_{start:04d}_{start + 2:04d}",
            "id": start,
            "duration": frames / 10,
            "start_time": start,
            "end_time": start + 2,
            "frame_length": frames,
            "recipe": "tea",
            "caption": f"boil {start} cups",
        }
        for film in films
        for start in (0, 2)
    }
    return {
        "breakfast": breakfast,
        "coin": coin,
        "qa": questions,
        "cap": captions,
        "segments": segments,
    }


def references(captions):
    """COCO's form of the captions of a split."""
    rows = captions.values()
    return {
        "annotations": [
            {"image_id": r.get("segment", r["video"]), "caption": r["caption"], "id": r["id"]}
            for r in rows
        ]
    }


def write_public_sets(root: Path, films: dict[str, list[str]], frames: int) -> None:
    """Every public set below a root, its films being those of `films` (split → names)."""
    coin = {}
    for split in SPLITS:
        formats = entries(films[split], frames)
        if split != "test":
            write_json(root / "breakfast/annotation" / f"{split}.json", formats["breakfast"])
        coin |= {name: {**entry, "subset": split} for name, entry in formats["coin"].items()}
        for folder in ("msvd", "msrvtt", "activitynet"):
            write_json(root / folder / "annotation" / f"qa_{split}.json", formats["qa"])
        for folder in ("msvd", "msrvtt", "youcook2"):
            captions = formats["segments" if folder == "youcook2" else "cap"]
            annotation = root / folder / "annotation"
            write_json(annotation / f"cap_{split}.json", captions)
            write_json(annotation / "coco_gt" / f"cap_{split}.json", references(captions))
    write_json(root / "coin/annotation/COIN.json", coin)
