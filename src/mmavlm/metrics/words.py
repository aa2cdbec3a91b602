"""What the names in metrics.json mean, in words: a few for tables, a sentence for the report."""

from __future__ import annotations

from typing import NamedTuple

from mmavlm.metrics.duet.words import WATCHED


class Meaning(NamedTuple):
    """A metric in a few words, and in a sentence."""

    short: str
    long: str


RANKED = "Ranked: the model scores every class or option, and the most probable one is its answer."
BY_JAVA = ("cider", "meteor", "bleu4", "rouge_l")  # the scores of captions, as COCO's code has them
WITHOUT_JAVA = ("cider_plain", "bleu4_plain", "rouge_l_plain")
CAPTIONS = "Captions are compared with all references; times 100, as papers print it."

# By the last part of a metric's name.
MEANINGS = {
    **{name: Meaning(*said) for name, said in WATCHED.items()},
    "top1": Meaning("right answers", "The share of items whose first generated answer is right."),
    "top5": Meaning(
        "right among five answers", "The share of items with a right one among five answers."
    ),
    "rank_top1": Meaning("right answers, ranked", RANKED),
    "rank_top5": Meaning("right among five, ranked", f"{RANKED} The first five count here."),
    "video_top1": Meaning(
        "right films, by majority",
        "The most frequent answer of a film's items to one question counts once for the film.",
    ),
    "rank_video_top1": Meaning("right films, ranked", f"{RANKED} The majority of a film counts."),
    "accuracy": Meaning("right answers", "The share that is right; of groups, the whole ones."),
    "item_accuracy": Meaning("right single answers", "Questions counted one by one."),
    "unparsed": Meaning("answers read as nothing", "The share of answers that name no option."),
    "coverage": Meaning("answered at all", "The share of items without an abstention."),
    "selective_accuracy": Meaning("right among those", "Of answers given, those that are right."),
    "aurc": Meaning(
        "risk, mean over coverages",
        "The area under the curve of wrong answers over the share that is answered, surest first.",
    ),
    "calibration_error": Meaning(
        "how far off confidence is", "The expected calibration error, over 15 bins of confidence."
    ),
    "unshown": Meaning(
        "answers with what is not shown",
        "The share of answers that tell something which this part of the film does not show.",
    ),
    "basic": Meaning("basic questions right", "Questions about what is there, of each pair."),
    "hallucinated": Meaning(
        "trick questions right", "Questions about what is not there, of each pair."
    ),
    "in_accuracy": Meaning(
        "right, lure from this film", "Triplets with the true and the in-video caption both right."
    ),
    "out_accuracy": Meaning(
        "right, lure from elsewhere", "Triplets with the true and the foreign caption both right."
    ),
    "sah_ratio": Meaning(
        "harm of lures from this film", "(Out − In)/(1 − In): 0 is best (ELV-Halluc, section 3)."
    ),
    "precision": Meaning("of its yes, right", "The share of answers yes that is right."),
    "recall": Meaning("of true yes, found", "The share of questions to answer yes that is found."),
    "f1": Meaning("F1 of yes", "The harmonic mean of precision and recall of the answer yes."),
    "yes_ratio": Meaning("answers yes", "The share of answers that say yes."),
    "yes_difference": Meaning(
        "yes too often", "(Yes said − yes true)/all: 0 for a model that says yes as often as true."
    ),
    "false_positive_ratio": Meaning(
        "of its mistakes, yes", "The share of yes among wrong answers to what calls for no."
    ),
    "mcc": Meaning("Matthews' correlation", "From −1 to 1; 0 where answers tell nothing."),
    "classification_score": Meaning("((mcc + 1)/2)²", "VidHalluc's score of scene changes."),
    "first_ratio": Meaning(
        "order as the question has it", "The share of answers in the order of the question."
    ),
    "first_true": Meaning("order of the question true", "How often that order is the true one."),
    "incomplete": Meaning("groups left out", "Pairs or groups of which a question is missing."),
    "v2t_r1": Meaning(
        "films whose text comes first", "The share of films whose own text is the most similar."
    ),
    "t2v_r1": Meaning(
        "texts whose film comes first", "The share of texts whose own film is the most similar."
    ),
    "cider": Meaning("CIDEr of captions", CAPTIONS),
    "meteor": Meaning("METEOR of captions", CAPTIONS),
    "bleu4": Meaning("BLEU-4 of captions", CAPTIONS),
    "rouge_l": Meaning("ROUGE-L of captions", CAPTIONS),
    "cider_plain": Meaning("CIDEr, words cut plainly", f"{CAPTIONS} Words are cut without Java."),
    "bleu4_plain": Meaning("BLEU-4, words cut plainly", f"{CAPTIONS} Words are cut without Java."),
    "rouge_l_plain": Meaning(
        "ROUGE-L, words cut plainly", f"{CAPTIONS} Words are cut without Java."
    ),
    "same": Meaning(
        "answers that stay", "The share of answers that are the same for the other view."
    ),
    "habitual_mistakes": Meaning(
        "wrong answers that it gives without the film, too",
        "Such a mistake does not come from the film: it is what the model is used to say.",
    ),
    # benchmarks: what their headline is
    "hallucination": Meaning(
        "answers with what is not shown",
        "The share of cut films answered with something that is not shown. Lower is better.",
    ),
    "videohallucer": Meaning(
        "pairs with both answers right", "A pair: the same asked of what is and what is not there."
    ),
    "eventhallusion": Meaning("right answers", "The share of yes/no questions that is right."),
    "vidhalluc": Meaning(
        "right on every clip of a pair", "Questions that are right on all clips they are asked of."
    ),
    "elv_halluc": Meaning(
        "right, lure from this film", "Triplets with the true and the in-video caption both right."
    ),
    "hallusionbench": Meaning("right answers", "The share of yes/no questions that is right."),
    "avhbench": Meaning(
        "right answers", "The share of yes/no questions that is right; captions have their scores."
    ),
    "omnivchall": Meaning("right answers", "The share of questions that is right."),
    "haven": Meaning("right answers", "The share of yes/no and choice questions that is right."),
    "pope": Meaning("right answers", "The share of questions about objects that is right."),
}  # fmt: skip

LOWER_IS_BETTER = {
    "habitual_mistakes", "hallucination", "unshown", "unparsed", "sah_ratio",
    "false_positive_ratio", "duplicates", "delay_s", "unjudged", "missing", "aurc",
    "calibration_error",
}  # fmt: skip
COUNTS = {"incomplete", "mentions", "unjudged", "missing"}
SIGNED = {"mcc", "yes_difference", "published_yes_difference", "sah_ratio"}  # no shares of a whole


def meaning(name: str) -> Meaning:
    """What the last part of a metric's name means; the name itself where nothing is known."""
    last = name.rpartition("/")[2]
    return MEANINGS.get(last, Meaning(last.replace("_", " "), ""))
