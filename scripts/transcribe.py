"""Write what is said in films beside them, by Whisper.

    python scripts/transcribe.py data/mine/clips --model openai/whisper-large-v3

Films that have subtitles beside them are left alone, so that what was interrupted goes on. Films
without sound are named and passed over.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmavlm.commands.cli import exit_on_mistake
from mmavlm.core.errors import VideoError
from mmavlm.data.sources import VIDEO_SUFFIXES
from mmavlm.data.speech import (
    FORMATS,
    SpeechRecognizer,
    films_of,
    transcribe,
    transcript_of,
    write_transcript,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Transcribe each film; 1 if the sound of any could not be read, else 0."""
    options = _parser().parse_args(arguments)
    with exit_on_mistake():
        films = films_of(options.films, VIDEO_SUFFIXES)
        if not options.overwrite:
            films = [film for film in films if transcript_of(film) is None]
        print(f"{len(films)} films to transcribe")
        return transcribe_all(films, _whisper(options), options.format) if films else 0


def transcribe_all(films: Sequence[Path], recognizer: SpeechRecognizer, kind: str) -> int:
    """Write a transcript beside each film with sound; 1 if the sound of any is broken, else 0."""
    broken = 0
    for film in films:
        try:
            said = transcribe(film, recognizer)
        except VideoError as error:
            broken = 1
            print(f"error: {error}", file=sys.stderr, flush=True)
            continue
        if said is None:
            print(f"{film}: no sound", flush=True)
        else:
            path = write_transcript(film, said, kind)
            print(f"{path}: {len(said)} segments", flush=True)
            if (first := transcript_of(film)) != path:
                print(f"{first} is read in its place; move it away", flush=True)
    return broken


def _whisper(options: argparse.Namespace) -> SpeechRecognizer:
    from mmavlm.data.whisper import WhisperRecognizer

    return WhisperRecognizer(
        options.model,
        language=options.language,
        least_log_prob=options.least_log_prob,
        device=options.device,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("films", type=Path, nargs="+", help="films, or folders searched deep")
    parser.add_argument("--model", required=True, help="a folder with a Whisper, or a hub name")
    parser.add_argument("--language", help="such as en; the model decides if not given")
    parser.add_argument("--least-log-prob", type=float, default=-2.0, help="of a segment's tokens")
    parser.add_argument("--format", choices=FORMATS, default="json", help="of the files")
    parser.add_argument("--device", default="cpu", help="such as cuda")
    parser.add_argument("--overwrite", action="store_true", help="also where subtitles are there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
