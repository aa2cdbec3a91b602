"""`mmavlm.load`: a model by one name, and what can be done with it.

    model = mmavlm.load("my_model")
    print(model.ask("film.mp4", "what happens?"))

Keywords beyond those named here are settings, as the command of the same kind has them:
`num_answers=3`, `contrast="noise"`, `**{"data.num_frames": 32}`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, overload

import torch
from omegaconf import DictConfig, OmegaConf

from mmavlm import chat, watch
from mmavlm.commands.checks import check_sources
from mmavlm.commands.replay import laid_over_checkpoint
from mmavlm.core.errors import ConfigError
from mmavlm.core.quoting import as_text
from mmavlm.loaded.answers import FilmAnswer, about, answers_about, answers_along, choose
from mmavlm.loaded.explained import Explained, explained
from mmavlm.loaded.given import as_path, texts
from mmavlm.loaded.live import Pictures, Watching
from mmavlm.loaded.places import checkpoint_of, device_of, dtype_of
from mmavlm.loaded.settings import composed, laid_over, lines_of, plainly, spelt
from mmavlm.loaded.talk import Talk
from mmavlm.model.backbone import VideoLanguageModel
from mmavlm.run.ask import Ready, load_backbone, ready_to_answer
from mmavlm.run.dialogue import chat_of
from mmavlm.weights.trust import OF_THE_MODEL

AT_LOADING = "it is said when a model is loaded: mmavlm.load(…)"
ON_THE_COMMAND_LINE = "it is for the command line alone"
TAKEN_BY_LOAD = {"checkpoint": "give the name first: mmavlm.load(name)"}
TAKEN = {
    "checkpoint": AT_LOADING,
    "trust": AT_LOADING,
    "format": ON_THE_COMMAND_LINE,
}
TAKEN_BY_ASK = {
    **TAKEN,
    "video": "give the film first: ask(film, prompt)",
    "questions": "give several prompts: ask(film, [prompt, …])",
    "question_options": "give the options as candidates",
    "answers_to": ON_THE_COMMAND_LINE,
    "stream_fps": "ask while the film is watched: ask_along(film, prompt, fps=1)",
    "every_s": "ask while the film is watched: ask_along(film, prompt, every_s=60)",
    "explain": "give the answer to explain(answer)",
    "explain_answer": "give a text to explain(answer, text)",
    "explain_stretches": "give it to explain(answer, stretches=…)",
    "explain_to": "save what explain(answer) gives: .save(folder)",
}
SHOWN = "show it: chat().show(path)"
TAKEN_BY_CHAT = {**TAKEN, "video": SHOWN, "image": SHOWN, "audio": SHOWN}
TOLD_AS = {"query": '"when does it rain?"', "camera": '"/dev/video0" or "rtsp://…"'}
TAKEN_BY_WATCH = {
    **TAKEN,
    "video": "give the film first: watch(film)",
    "to": ON_THE_COMMAND_LINE,
    "truth": ON_THE_COMMAND_LINE,
}


@plainly
def load(
    name_or_path: str | Path | None = None,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    trust: str | Sequence[str] = (),
    **settings: Any,
) -> LoadedModel:
    """A model by a checkpoint, the folder of a run, an exported folder, or its name on the hub.

    Of a run it is the best checkpoint. Without a name, `experiment=…` loads pretrained weights as
    they are. `device` is auto (a GPU if there is one), cpu or cuda. `dtype` casts all weights
    (float32, bfloat16, float16); without it each part keeps its own. `trust` admits what a
    checkpoint of somebody else names (see docs/operations.md). `settings` are those that all
    commands share.

    Raises:
        CheckpointError: if nothing is there, it is damaged, or it says more than it may.
        ConfigError: if a setting, the device or the dtype is none, or parts of the model are at
            random values.
        NoMemoryError: if the model is larger than the free memory.
    """
    place, kind = device_of(device), dtype_of(dtype)
    lines = lines_of(settings, TAKEN_BY_LOAD)
    if trust:
        lines.append(f"trust={spelt(texts('trust', trust))}")
    if name_or_path is not None:
        lines.append(f"checkpoint={spelt(checkpoint_of(name_or_path, revision))}")
    lines = laid_over_checkpoint(lines)
    config = composed("train", lines)  # which has what all commands share
    check_sources(config)
    if kind is not None and (held := OmegaConf.select(config, "backbone.llm.quantization")):
        raise ConfigError(
            f"dtype={str(dtype)!r} would cast weights that llm.quantization={held} holds; leave "
            "one of them out"
        )
    backbone, run = load_backbone(config, place, kind)
    name = settings.get("experiment") if name_or_path is None else name_or_path
    return LoadedModel(str(name), lines, config, backbone, run)


class LoadedModel:
    """A model that is asked, talked with, lets films be watched, and says what answers rest on.

    `backbone` is the model itself, in eval mode; made by `mmavlm.load`.
    """

    def __init__(
        self,
        name: str,
        lines: Sequence[str],
        config: DictConfig,
        backbone: VideoLanguageModel,
        run: Mapping[str, Any] | None,
    ) -> None:
        self.name = name
        self.backbone = backbone
        self._lines, self._run = lines, run
        self._built = _of_the_model(config)
        self._composed: dict[str, tuple[list[str], DictConfig]] = {}

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.backbone.vision.device

    @overload
    def ask(
        self,
        film: str | Path,
        prompt: str,
        *,
        candidates: Sequence[str] | None = None,
        **settings: Any,
    ) -> FilmAnswer: ...

    @overload
    def ask(
        self,
        film: str | Path | Sequence[str | Path],
        prompt: str | Sequence[str],
        *,
        candidates: Sequence[str] | None = None,
        **settings: Any,
    ) -> list[FilmAnswer]: ...

    @plainly
    @torch.inference_mode()
    def ask(
        self,
        film: str | Path | Sequence[str | Path],
        prompt: str | Sequence[str],
        *,
        candidates: Sequence[str] | None = None,
        **settings: Any,
    ) -> FilmAnswer | list[FilmAnswer]:
        """The answer to a prompt about a film, as the command `predict` gives it.

        Several films, several prompts, or both, give a list, film by film; each film is decoded
        and encoded once. With `candidates` they are ranked. A folder of pictures, or a picture, is
        a film, too.

        Raises:
            ConfigError: if the model answers nothing, or a setting does not fit.
            VideoError: naming a film that is missing or cannot be decoded.
        """
        config = self._config("predict", lines_of(settings, TAKEN_BY_ASK))
        one = isinstance(film, str | Path) and isinstance(prompt, str)
        films, prompts = texts("film", film, (str, Path)), texts("prompt", prompt)
        answers = answers_about(self._ready(config), config, films, prompts, candidates)
        return answers[0] if one else answers

    @plainly
    def ask_along(
        self,
        film: str | Path,
        prompt: str,
        *,
        fps: float = 1.0,
        every_s: float | None = None,
        candidates: Sequence[str] | None = None,
        **settings: Any,
    ) -> Iterator[FilmAnswer]:
        """The answers to a prompt every `every_s` seconds of a film, and at its end, as they come.

        The film is watched frame by frame, `fps` of them a second, in constant memory, however long
        it is. An answer's `end_s` says up to when it was seen.

        Raises:
            ConfigError: if the model answers nothing, or a setting does not fit.
            VideoError: if the film is missing or cannot be decoded.
        """
        config = deepcopy(self._config("predict", lines_of(settings, TAKEN_BY_ASK)))
        config.stream_fps, config.every_s = fps, every_s
        choose(config, candidates)
        about(config, film, prompt)
        return answers_along(self._ready(config), config, Path(film), prompt)

    @plainly
    def chat(self, **settings: Any) -> Talk:
        """A conversation of its own: show films, pictures and sounds, ask, and ask again.

        `settings` are those of the command `chat`, such as `temperature=0.6` or `num_beams=5`.

        Raises:
            ConfigError: if the model answers nothing, or a setting does not fit.
        """
        config = self._config("chat", lines_of(settings, TAKEN_BY_CHAT))
        chat.check_request(config)
        return Talk(chat_of(config, self._ready(config)))

    @plainly
    def watch(
        self,
        film: str | Path | Pictures | None = None,
        query: str | None = None,
        *,
        camera: str | None = None,
        **settings: Any,
    ) -> Watching:
        """The moments of a film, a camera, or pictures with their times, as they come.

        `settings` are those of the command `watch`, such as `fps=2`, `speak={"threshold": 0.7}` or
        `queries=[{"time_s": 12.5, "text": "and now?"}]`. No file is written.

        Raises:
            ConfigError: if the model has no heads that score frames, or a setting does not fit.
            VideoError: if the film is missing.
        """
        self._require_heads()
        for name, text in (("query", query), ("camera", camera)):
            if not isinstance(text, str | None):
                raise ConfigError(f"{name} is {text!r}; give a text, such as {TOLD_AS[name]}")
        config = deepcopy(self._config("watch", lines_of(settings, TAKEN_BY_WATCH)))
        config.query = None if query is None else as_text(query)
        config.camera = None if camera is None else as_text(camera)
        if film is None or isinstance(film, str | Path):
            config.video = None if film is None else as_text(str(as_path("film", film)))
            watch.check_request(config)
            return Watching(self.backbone, config)
        if camera is not None:
            raise ConfigError("give one of a film, pictures with their times, and camera=…")
        return Watching(self.backbone, config, film)

    @plainly
    def explain(
        self, answer: FilmAnswer, text: str | None = None, *, stretches: int | None = None
    ) -> Explained:
        """What an answer rests on, as `explain=true` of `predict` gives it; or `text` in its place.

        `stretches` of the film are hidden, one at a time: 8 by default, 0 for none.

        Raises:
            ConfigError: if the model has no memory to look into, the text is empty, or the film
                cannot be cut into so many stretches.
            VideoError: if the film cannot be decoded any more.
        """
        if not isinstance(answer, FilmAnswer):
            raise ConfigError(f"answer is {answer!r}; give what ask(film, prompt) gave")
        if not isinstance(text, str | None):
            raise ConfigError(f"text is {text!r}; give the answer that is to be explained")
        return explained(self._ready(answer.request), answer, text, stretches)

    def __repr__(self) -> str:
        weights = sum(p.numel() for p in self.backbone.parameters()) / 1e6
        return f"<mmavlm model {self.name}: {weights:.1f} million weights, on {self.device}>"

    def _ready(self, config: DictConfig) -> Ready:
        return ready_to_answer(config, self.backbone, self._run)

    def _require_heads(self) -> None:
        if self.backbone.heads is None:
            raise ConfigError(
                f"{self.name} has no heads that score frames, so it cannot watch a film as it "
                "runs; load a model of the duet (such as experiment=duet_movies trains), or ask "
                "about the whole film: model.ask(film, prompt)"
            )

    def _config(self, verb: str, lines: list[str]) -> DictConfig:
        """The config of a command for this model; the last of each command is kept."""
        kept = self._composed.get(verb)
        if kept is not None and kept[0] == lines:
            return kept[1]
        config = composed(verb, laid_over(self._lines, lines))
        if lines and _of_the_model(config) != self._built:
            raise ConfigError(
                f"{', '.join(lines)} would change the model, which is built already; give it to "
                "mmavlm.load"
            )
        check_sources(config)
        self._composed[verb] = (lines, config)
        return config


def _of_the_model(config: DictConfig) -> dict[str, Any]:
    """The settings that a model was built of."""
    parts = {group: config.get(group) for group in (*OF_THE_MODEL, "init")}
    return {
        group: OmegaConf.to_container(part, resolve=True) if OmegaConf.is_config(part) else part
        for group, part in parts.items()
    }
