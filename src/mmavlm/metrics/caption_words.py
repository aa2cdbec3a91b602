"""Captions → words, as COCO's evaluation cuts them (in Java), or without Java."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

LIMIT_S = 540  # other processes wait for the first one, and give up after ten minutes
TOKENIZER_JAR = "tokenizer/stanford-corenlp-3.4.1.jar"
INSTALL_JAVA = "install Java 8 or newer (such as apt install default-jre-headless)"
WORD = re.compile(
    r"\w+(?=n't\b)|n't\b|'(?:s|m|d|re|ve|ll)\b"  # do|n't, man|'s
    r"|\w+(?:[-.,/&]\w+)*"  # t-shirt, 1/2, 3.5
)


class JavaError(Exception):
    """Java, or what it was to run, did not come to its end."""


def library() -> Path | None:
    """The folder of pycocoevalcap, which holds COCO's scorers and their jars, if installed."""
    found = importlib.util.find_spec("pycocoevalcap")  # has no __init__, so no file
    folders = [] if found is None else map(Path, found.submodule_search_locations or ())
    return next((folder for folder in folders if (folder / TOKENIZER_JAR).is_file()), None)


def java() -> str | None:
    """The path of the `java` command, if there is one."""
    return shutil.which("java")


def plain_words(texts: Sequence[str]) -> list[str]:
    """Texts as words with one space between: lower case, contractions apart, no punctuation."""
    return [" ".join(WORD.findall(text.lower())) for text in texts]


def ptb_words(texts: Sequence[str]) -> list[str]:
    """Texts as words with one space between, by the tokenizer of COCO's evaluation.

    Stanford's PTBTokenizer 3.4.1, lower case, less the punctuation that COCO leaves out. Equal to
    the library's own call of it, but for texts with an end of line within (also U+2028), by which
    that one shifts all texts behind.

    Raises:
        JavaError: if Java fails.
    """
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS

    lines = run_jar(
        ["-cp", TOKENIZER_JAR, "edu.stanford.nlp.process.PTBTokenizer"],
        [" ".join(text.split()) for text in texts],
        ["-preserveLines", "-lowerCase", "-encoding", "UTF-8"],
    )
    dropped = {*PUNCTUATIONS, ""}
    return [" ".join(w for w in line.split(" ") if w not in dropped) for line in lines]


def run_jar(program: Sequence[str], lines: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """Give a Java program of the library lines of text; it answers each with a line.

    Raises:
        JavaError: if it cannot be started, fails, takes too long, or answers with fewer lines.
    """
    folder, command = library(), java()
    if folder is None or command is None:
        raise JavaError("java or pycocoevalcap is missing")
    # the machine's locale must not decide what becomes of é
    call = [command, "-Xmx2G", "-Dfile.encoding=UTF-8", *program, *arguments]
    text = "".join(f"{line}\n" for line in lines).encode()
    try:
        done = subprocess.run(
            call, input=text, capture_output=True, cwd=folder, timeout=LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise JavaError(str(error)) from error
    answers = done.stdout.decode("utf-8", errors="replace").split("\n")[: len(lines)]
    if done.returncode or len(answers) < len(lines):
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["nothing"]
        raise JavaError(f"exit code {done.returncode}; it said: {said[-1]}")
    return answers
