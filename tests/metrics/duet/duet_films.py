"""Watched films and their truth, made for tests."""

from mmavlm.metrics.duet.watched import Event, EventTruth, Said, Watched


def said(*turns):
    return tuple(Said(float(time_s), text) for time_s, text in turns)


def watched(question="q0", relevance=(), *, replies=(), queries=((0, "when?"),), fps=1.0, **more):
    """A film watched at `fps`, with scores of relevance, or others by name; a second a frame."""
    scores = {"relevance": tuple(map(float, relevance)), **more}
    frames = len(scores["relevance"])
    duration_s = frames / fps if frames else 100.0
    times = tuple(n / fps for n in range(frames))
    return Watched(question, duration_s, times, scores, said(*replies), said(*queries))


def truth(question="q0", *events, film=None, queries=((0, "when?"),)):
    """The truth of a question: events as (start_s, end_s) or (start_s, end_s, text)."""
    return EventTruth(
        question, film or f"film of {question}", tuple(Event(*event) for event in events),
        said(*queries),
    )  # fmt: skip
