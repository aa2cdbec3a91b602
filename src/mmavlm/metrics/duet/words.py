"""What scores of watched films mean: a few words for tables, and a sentence for reports."""

from __future__ import annotations

DENSE = ("dense_cider", "soda_c", "dense_cider_plain", "soda_rouge_l_plain")  # of told segments
# Numbers with a unit or a scale of their own, printed as they are.
MEASURES = {
    "delay_s", "replies_per_minute", "constant_every_s", "in_span_score", "replies",
    "distinct_replies",
}  # fmt: skip

# What is told first of a task, in this order.
HEADLINE = (
    "speaking_f1", "above_constant", "miou", "span_miou", "very_good_map", "very_good_hit1",
)  # fmt: skip

_OF_FRAMES = "Intersection by union of frames found and true ones; a mask may lie in pieces."
_OF_SPANS = "Intersection by union of seconds: the best run of frames beside the true spans."
_AVERAGE = "Interpolated average precision of clips of 2 s, over questions and annotators."
_HIT = "How often the best clip is a highlight to an annotator."
_TELLING = "What was told while a film ran, compared with captions of true segments; times 100."

WATCHED = {
    "miou": ("mean IoU of frames", _OF_FRAMES),
    "span_miou": ("mean IoU of spans", _OF_SPANS),
    **{f"iou{n}": (f"frames with IoU of .{n // 10} or more", _OF_FRAMES) for n in (30, 50, 70)},
    **{f"span_iou{n}": (f"spans with IoU of .{n // 10} or more", _OF_SPANS) for n in (30, 50, 70)},
    **{
        f"{level.replace(' ', '_')}_{kind}": (f"{name}, rated {level} or more", says)
        for level in ("fair", "good", "very good")
        for kind, name, says in (("map", "mAP", _AVERAGE), ("hit1", "HIT@1", _HIT))
    },
    "segment_precision": (
        "told segments that are true", "Share with a true one above an IoU, mean over .3 .5 .7 .9."
    ),
    "segment_recall": (
        "true segments that were told", "Share with a told one above an IoU, mean over .3 .5 .7 .9."
    ),
    "segment_f1": ("F1 of segments", "Of precision and recall of segments, film by film."),
    "dense_cider": ("CIDEr of told segments", _TELLING),
    "dense_cider_plain": ("the same, words cut plainly", f"{_TELLING} Words are cut without Java."),
    "soda_c": ("SODA: in order, by METEOR", _TELLING),
    "soda_rouge_l_plain": ("SODA by ROUGE-L, not METEOR", f"{_TELLING} Without Java."),
    "in_span_score": (
        "score within spans, 1 to 5", "A judge's, of what was said while the evidence was seen."
    ),
    "replies": ("replies a question", "How many there are, repeats among them."),
    "distinct_replies": ("different replies a question", "Equal texts count once."),
    "unjudged": ("replies without a verdict", "They count as 1."),
    "speaking_precision": (
        "replies at an event", "The share of replies within the tolerance of an event of their own."
    ),
    "speaking_recall": (
        "events replied to", "The share of events with a reply of their own within the tolerance."
    ),
    "speaking_f1": ("F1 of speaking in time", "Replies and events are matched one to one."),
    "delay_s": (
        "seconds to the next reply", "From an event's start, if there is one before the next event."
    ),
    "answered": ("events with a reply to come", "The share with one before the next event."),
    "answered_in_span": (
        "true answers with a reply", "The share with one while their evidence was seen."
    ),
    "replies_per_minute": ("replies a minute", "Of all films together."),
    "duplicates": ("replies said before", "The share of replies whose text was there before."),
    "constant_f1": (
        "F1 of the best rhythm", "Speaking every n seconds, with the n that is best for the truth."
    ),
    "constant_every_s": ("seconds of that rhythm", "The n of the best rhythm."),
    "above_constant": ("F1 above the best rhythm", "What looking brings: F1 less that of rhythm."),
    "missing": ("questions not watched", "They count as wrong."),
}  # fmt: skip
