import pytest
import torch
from chat_tokenizers import CHATML, CHATS, ENDS, chatml
from models import FAMILIES, asking, build, question, save, seen
from tokenizers import AddedToken

from mmavlm.core.errors import ConfigError
from mmavlm.core.generation import Generation
from mmavlm.model.llm import HFLanguageModel, PromptedLanguageModel
from mmavlm.model.llm.rendering import Rendering
from mmavlm.model.text import load_tokenizer

PROMPTS = ["what is the genre of the movie?", "hi", "why does the man sit in the prison?"]
ANSWERS = ["comedy", "ex-boyfriend ex-girlfriend", "a zebra", "2", ""]
SEEN = [40, 60, 80, 50]  # ids that stand where the video tokens go


def rendering(name, chat="auto", **settings):
    tokenizer = CHATS[name]()
    defaults = {"template": "{prompt}", "max_prompt_tokens": 64, "max_answer_tokens": 64}
    return Rendering(tokenizer, **defaults | {"continues": True} | settings, chat=chat)


def own_ids(name, prompt, answer=None):
    """The ids of a chat about a picture as processors make them: all of it in one text."""
    tokenizer = CHATS[name]()
    tokenizer.add_tokens([AddedToken("<image>", special=True, normalized=False)])
    turns = [{"role": "user", "content": f"<image>{prompt}"}]
    if answer is not None:
        turns.append({"role": "assistant", "content": answer})
    told = tokenizer.apply_chat_template(
        turns, add_generation_prompt=answer is None, return_dict=False
    )
    at = told.index(tokenizer.convert_tokens_to_ids("<image>"))
    return [*told[:at], *SEEN, *told[at + 1 :]]


@pytest.mark.parametrize("name", CHATS)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_prompt_is_what_the_template_makes_of_it_with_the_video_in_its_place(name, prompt):
    asked = question(rendering(name), prompt)
    around = [*asked.ids[: asked.media_at[0]], *SEEN, *asked.ids[asked.media_at[0] :]]
    assert around == own_ids(name, prompt)


@pytest.mark.parametrize("name", CHATS)
@pytest.mark.parametrize("answer", [answer for answer in ANSWERS if answer])
def test_an_answer_is_what_the_template_makes_of_it_up_to_its_end_of_turn(name, answer):
    told, asked = own_ids(name, PROMPTS[0], answer), own_ids(name, PROMPTS[0])
    ids = rendering(name).answers.ids(answer)
    end = CHATS[name]().convert_tokens_to_ids(ENDS[name])
    expected = told[len(asked) : told.index(end, len(asked)) + 1]
    if name == "llama2":  # it writes a space before the end, which no model needs to learn
        assert expected.pop(-2) == CHATS[name]().convert_tokens_to_ids("▁")
    assert ids == expected


@pytest.mark.parametrize("name", CHATS)
@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_comes_back_from_its_ids(name, answer):
    read = rendering(name)
    assert read.answers.decode(read.answers.ids(answer)) == answer


def test_generated_ids_end_with_the_end_of_turn_or_of_text():
    read = rendering("chatml")
    turn, text = read.answers.end_ids
    assert turn != text
    assert read.answers.until_end([7, turn, text]) == [7, turn]
    assert read.answers.until_end([7, text, turn]) == [7, text]


def test_a_long_prompt_loses_its_beginning_and_the_template_nothing():
    prompt = "what is the genre of the movie?"
    cut = rendering("gemma", max_prompt_tokens=3)
    whole, short = cut.tokenizer(prompt)["input_ids"], question(cut, prompt)
    rest = cut.tokenizer.decode(whole[-3:]).strip()
    assert rest
    assert rest != prompt
    assert short == question(rendering("gemma"), rest)


@pytest.mark.parametrize(("choice", "own"), [("auto", True), ("none", False), (None, False)])
def test_a_template_is_the_tokenizers_own_or_none(choice, own):
    assert rendering("chatml", choice).chats is own


def test_auto_takes_none_where_the_tokenizer_has_none():
    plain = Rendering(load_tokenizer(None), template="{prompt}", max_prompt_tokens=9,
                  max_answer_tokens=9, continues=True, chat="auto")  # fmt: skip
    assert not plain.chats


def test_a_template_may_be_given_or_lie_in_a_file(tmp_path):
    other = CHATML.replace("assistant", "helper")
    (tmp_path / "chat.jinja").write_text(other)
    given, read = rendering("chatml", other), rendering("chatml", str(tmp_path / "chat.jinja"))
    assert question(given, "hi") == question(read, "hi") != question(rendering("chatml"), "hi")


def test_what_a_template_writes_before_an_answer_belongs_to_the_prompt():
    thinking = CHATML.replace(
        "{{ m.content }}",
        "{% if m.role == 'assistant' %}<think>\n</think>\n{% endif %}{{ m.content }}",
    )
    read = rendering("chatml", thinking)
    assert read.answers.decode(question(read, "hi").ids).endswith("<think>\n</think>")
    assert read.answers.decode(read.answers.ids("comedy")) == "comedy"


def test_the_video_goes_where_the_prompt_template_says():
    asked = question(rendering("chatml", template="{prompt} {video} in a word"), "hi")
    tokenizer = chatml()
    assert tokenizer.decode(asked.ids[: asked.media_at[0]]).endswith("user\nhi ")
    assert tokenizer.decode(asked.ids[asked.media_at[0] :]).startswith(" in a word<|im_end|>")
    plain = question(
        rendering("chatml", "none", template="USER: {video} {prompt} ASSISTANT:"), "hi"
    )
    assert tokenizer.decode(plain.ids[: plain.media_at[0]]) == "USER: "
    assert tokenizer.decode(plain.ids[plain.media_at[0] :]) == " hi ASSISTANT:"


@pytest.mark.parametrize(
    ("chat", "message"),
    [
        ("gone.jinja", "'gone.jinja', which is no format, no Jinja template, and no file"),
        ("vicuna", "choose auto, none, vicuna_v1, llama_2, chatml, video_llama, a template"),
        ("{% for m in messages %}", "cannot be applied to a user's turn"),
        (
            "{{ raise_exception('no users') }}",
            "user's turn .TemplateError: no users",
        ),
        ("{{ messages[0].content }}", "must write a user's prompt and the assistant's answer once"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(chat, message):
    with pytest.raises(ConfigError, match=message):
        rendering("chatml", chat)


def test_two_places_for_the_video_are_refused():
    with pytest.raises(ConfigError, match=r"llm.prompt_template gives the video 2 places"):
        rendering("chatml", "none", template="{video}{video}{prompt}")


def test_a_prompt_with_the_sign_of_the_video_is_refused():
    with pytest.raises(ConfigError, match=r"holds U\+E0F0, which stands for the video"):
        question(rendering("chatml"), "what is \ue0f0?")


@pytest.fixture(scope="module", params=[(f, c) for f in FAMILIES for c in CHATS],
                ids=lambda pair: "-".join(pair))  # fmt: skip
def talking(request):
    family, chat = request.param
    tokenizer = CHATS[chat]()
    model = build(family, vocab_size=len(tokenizer)).requires_grad_(False)
    return chat, PromptedLanguageModel(model, tokenizer, chat_template="auto")


def test_a_chat_scores_as_the_models_own_call_on_its_own_ids(talking):
    chat, llm = talking
    video = llm.model.get_input_embeddings()(torch.tensor([SEEN] * len(PROMPTS)))
    targets = ["comedy", "the wife", "a zebra"]
    expected = []
    for prompt, target in zip(PROMPTS, targets, strict=True):
        asked, answer = own_ids(chat, prompt), llm.answers.ids(target)
        if llm.model.config.is_encoder_decoder:
            own = {"input_ids": torch.tensor([asked]), "labels": torch.tensor([answer])}
        else:
            labels = torch.tensor([[*[-100] * len(asked), *answer]])
            own = {"input_ids": torch.tensor([asked + answer]), "labels": labels}
        expected.append(-llm.model(**own).loss * len(answer))
    tokens = sum(llm.answer_length(target) for target in targets)
    torch.testing.assert_close(
        llm.loss(asking(PROMPTS, targets), seen(video)), -sum(expected) / tokens
    )
    ranked = llm.rank(asking(PROMPTS), seen(video), targets).diag()
    torch.testing.assert_close(ranked, torch.stack(expected), rtol=1e-4, atol=1e-4)


def test_chats_in_a_batch_give_what_they_give_alone(talking):
    _, llm = talking
    video = torch.randn(3, 4, llm.width, generator=torch.Generator().manual_seed(0))
    settings = {"num_beams": 2, "num_answers": 2, "max_new_tokens": 4}
    together = llm.generate(asking(PROMPTS), seen(video), Generation(**settings))
    scores = llm.rank(asking(PROMPTS), seen(video), ANSWERS)
    for i, prompt in enumerate(PROMPTS):
        alone = llm.generate(asking([prompt]), seen(video[i : i + 1]), Generation(**settings))[0]
        assert [a.text for a in together[i]] == [a.text for a in alone]
        assert [a.log_prob for a in together[i]] == pytest.approx(
            [a.log_prob for a in alone], abs=1e-3
        )
        one = llm.rank(asking([prompt]), seen(video[i : i + 1]), ANSWERS)[0]
        torch.testing.assert_close(scores[i], one, rtol=1e-4, atol=1e-4)


def test_a_chat_stops_at_the_end_of_its_turn():
    tokenizer = chatml()
    llm = PromptedLanguageModel(
        build("llama", vocab_size=len(tokenizer)), tokenizer, chat_template="auto"
    )
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    bias = torch.zeros(len(tokenizer))
    bias[end] = 1e4
    llm.model.get_output_embeddings().register_forward_hook(lambda *a: a[2] + bias)
    found = llm.generate(
        asking(["hi"]),
        seen(torch.randn(1, 2, llm.width)),
        Generation(num_beams=1, max_new_tokens=5),
    )
    assert found[0][0].text == ""
    assert found[0][0].log_prob == pytest.approx(0, abs=1e-3)


def test_a_saved_chat_model_is_asked_in_its_own_template(tmp_path):
    folder = save("llama", tmp_path)
    tokenizer = load_tokenizer(None)
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)
    asked = question(HFLanguageModel(folder, chat_template="auto").rendering, "hi")
    assert load_tokenizer(None).decode(asked.ids[asked.media_at[0] :]).startswith("hi<|im_end|>\n")
