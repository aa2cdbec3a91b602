"""How many floating-point operations a training step of a model takes, from its sizes (`flops`)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mmavlm.core.flops import Products, look_flops, loop_flops, products_of
from mmavlm.core.footprint import FilmSizes
from mmavlm.core.interfaces import ReadsPatches

if TYPE_CHECKING:
    from mmavlm.model.backbone import VideoLanguageModel
    from mmavlm.model.branches import Branch


class ReadFlops:
    """Counts the operations of a language model of transformers on rows that are learned from."""

    def __init__(self, model: Any) -> None:
        head = model.get_output_embeddings()
        self.head = products_of(head)
        self.encoder: Products | None = None
        decoder = model
        if model.config.is_encoder_decoder:
            self.encoder, decoder = products_of(model.get_encoder()), model.get_decoder()
        self.decoder = products_of(decoder, without=head)

    def __call__(self, rows: int, positions: int, predicted: int, *, learns: bool = True) -> int:
        """What it makes of `rows` of so many positions, with logits for `predicted` ones of each.

        Without a backward pass where nothing is learned. A decoder that reads an encoder has the
        predicted positions alone.
        """
        if self.encoder is None:
            work = _through(self.decoder, rows, positions, backward=learns)
        else:
            work = _through(self.encoder, rows, positions, backward=learns)
            read = rows * positions
            work += _through(self.decoder, rows, predicted, read, backward=learns)
        scored = rows * predicted
        return work + self.head.forward(scored) + learns * self.head.backward(scored)


class StepFlops:
    """Counts the operations of a model's training steps; its layers are looked through once.

    What the visual branch makes of films is `seen`, what the audio branch makes of sounds `heard`,
    what the language model makes of rows `read`, None without one; `step` is all of it.
    """

    def __init__(self, model: VideoLanguageModel) -> None:
        self.model = model
        vision: Any = model.vision
        branches: list[Any] = [b for b in (vision, model.sound) if b is not None]
        self._encoders = {branch: products_of(branch.encoder) for branch in branches}
        self._temporal = products_of(vision.temporal)
        # what attends to words; the words themselves are few
        self._fusion = [
            products_of(layer)
            for name, layer in vision.fusion.named_modules()
            if name.endswith((".query", ".output"))
        ]
        texts: Any = None if model.alignment is None else model.alignment.text_encoder
        self._texts = None if texts is None else products_of(texts)
        llm: Any = model.llm
        self.read = None if llm is None else ReadFlops(llm.model)

    def step(
        self,
        rows: int,
        frames: int,
        prompt_tokens: int = 32,
        answer_tokens: int = 32,
        clips: int = 0,
    ) -> int:
        """A step over so many films of so many frames, with a question each, forward and back.

        With `clips` each film is heard, too, by a model that hears.
        """
        found = self.seen(rows, rows, frames, prompt_tokens, prompt_tokens + answer_tokens)
        if self.read is None:
            return found
        read = self.model.vision.num_tokens(frames) + prompt_tokens
        if clips and self.model.sound is not None:
            found += self.heard(rows, clips)
            read += self.model.sound.num_tokens(clips)
        if self.read.encoder is None:
            read += answer_tokens - 1  # the last token is predicted, never read
        return found + self.read(rows, read, answer_tokens)

    def seen(self, films: int, views: int, frames: int, guide_tokens: int, text_tokens: int) -> int:
        """What a branch makes of `views` of films of so many frames, forward and backward.

        Guides and the texts that films are aligned with have so many tokens.
        """
        model, vision = self.model, self.model.vision
        aligned = model.alignment.frames if model.alignment is not None else None
        first = 0 if aligned is None else aligned.prefix(frames)
        watches = model.llm is not None or (aligned is not None and aligned.beyond_first)
        if not watches:
            frames = first
        film = FilmSizes(views, frames, vision.encoder.num_tokens, vision.encoder.width)
        qformer = vision.temporal.sizes(guide_tokens, at_most=frames)
        found = self._encoded(vision, films * frames)
        if vision.fusion.reads_guide:
            positions = views * frames * film.tokens
            found += sum(p.forward(positions) + p.backward(positions) for p in self._fusion)
        if watches:
            found += self._watched(film, guide_tokens)
        if aligned is not None:
            # each of the leading frames carries gradient, from an empty memory
            found += loop_flops(replace(film, frames=first), qformer, first, cached=False)
            if aligned.uses_middle:
                banked = min(frames // 2, qformer.slots)
                found += 3 * look_flops(film, qformer, banked)
            if self._texts is not None:
                found += _through(self._texts, views, text_tokens)
        return found

    def heard(self, sounds: int, clips: int) -> int:
        """What the audio branch makes of sounds of so many clips, forward and backward."""
        sound = self.model.sound
        if sound is None or not sounds:
            return 0
        film = FilmSizes(sounds, 1, clips * sound.encoder.num_tokens, sound.encoder.width)
        qformer = sound.temporal.sizes(0, at_most=clips)
        return self._encoded(sound, sounds * clips) + loop_flops(film, qformer, 1, cached=False)

    def _encoded(self, branch: Branch, inputs: int) -> int:
        """Frames or clips through a frozen encoder; a stand-in for the cache has no layers."""
        tokens = branch.encoder.num_tokens
        return _through(self._encoders[branch], inputs, tokens, backward=False)

    def _watched(self, film: FilmSizes, guide_tokens: int) -> int:
        """The temporal aggregator over a film, and what takes its looks to the language model."""
        temporal, seen = self.model.vision.temporal, film
        looks = temporal.looks_at(film.frames)
        if isinstance(temporal, ReadsPatches):
            seen = replace(film, frames=looks)
        qformer = temporal.sizes(guide_tokens, at_most=film.frames)
        learning = temporal.backprop_frames or seen.frames
        found = loop_flops(seen, qformer, learning, cached=getattr(temporal, "cache_keys", False))
        if isinstance(temporal, ReadsPatches) and not qformer.layers:
            positions = seen.rows * seen.frames * film.tokens
            found += self._temporal.forward(positions) + self._temporal.backward(positions)
        projector = self.model.vision.projector
        if projector is None:
            return found
        tokens = film.rows * self.model.vision.num_tokens(film.frames)
        positions = film.rows * looks * temporal.num_queries  # of the first layer, which may pool
        for layer in map(products_of, _leaves(projector)):
            found += layer.forward(positions) + layer.backward(positions)
            positions = tokens
        return found


def _through(
    part: Products, rows: int, positions: int, read: int = 0, *, backward: bool = True
) -> int:
    """Rows of so many positions through a Transformer, there and back."""
    work = part.forward(rows * positions, read) + part.attention(rows, positions, positions)
    if not backward:
        return work
    attention = 2 * part.attention(rows, positions, positions)
    return work + part.backward(rows * positions, read) + attention


def _leaves(module: Any) -> list[Any]:
    """The layers of a module that have weights of their own, first to last."""
    return [layer for layer in module.modules() if not any(layer.children())]
