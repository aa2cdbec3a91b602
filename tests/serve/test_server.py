"""The server over a loopback socket: the page's calls, and OpenAI's client."""

import base64
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest
from PIL import Image
from visitors import UNTRAINED, Visitor, serving

import mmavlm
from mmavlm.core.errors import DataError
from mmavlm.serve.limits import Limits


def answer_of(events):
    *pieces, last = [event for event in events if "waiting" not in event]
    assert "answer" in last, events
    assert "".join(event["piece"] for event in pieces) == last["answer"]
    return last


def test_an_answer_comes_piece_by_piece_and_is_that_of_python(visitor, model, make_clip):
    clip = make_clip()
    told = visitor.bring(clip).json()
    assert told["kind"] == "film"
    assert told["duration_s"] > 0
    talk = model.chat().show(clip)
    for text, films in (("what happens?", [told["film"]]), ("and then?", [])):
        last = answer_of(visitor.ask(text, *films))
        said = talk.say(text)
        assert last["answer"] == said.text
        assert last["probability"] == pytest.approx(said.probability, rel=1e-4)
        assert 0 < last["first_s"] <= last["seconds"]


def test_two_visitors_at_once_do_not_mix(server, model, make_clip, tmp_path):
    clip, picture = make_clip(), tmp_path / "a.png"
    Image.new("RGB", (32, 32), "red").save(picture)
    found = {}

    def talk(name, path):
        visitor = Visitor(server[0])
        film = visitor.bring(path).json()["film"]
        found[name] = [
            answer_of(visitor.ask("what is it?", film))["answer"],
            answer_of(visitor.ask("are you sure?"))["answer"],
        ]

    threads = [threading.Thread(target=talk, args=one) for one in (("a", clip), ("b", picture))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for name, path in (("a", clip), ("b", picture)):
        own = model.chat().show(path)
        assert found[name] == [own.say("what is it?").text, own.say("are you sure?").text]


def test_an_explanation_has_slots_attention_and_what_is_said_without_the_film(visitor, make_clip):
    film = visitor.bring(make_clip()).json()["film"]
    answer = answer_of(visitor.ask("what happens?", film))["answer"]
    events = [*visitor.events("/api/explain", film=film, prompt="what happens?", answer=answer)]
    told = next(event["explained"] for event in events if "explained" in event)
    assert len(told["times_s"]) == len(told["attention"]) == 4
    assert sum(told["attention"]) == pytest.approx(1, abs=1e-2)
    assert {"with the film", "without the film"} <= told["log_prob"].keys()
    assert told["answer"] == answer
    assert told["sentences"]


def test_a_duet_watches_and_others_may_ask_meanwhile(visitor, server, make_clip):
    film = visitor.bring(make_clip()).json()["film"]
    other = Visitor(server[0])
    picture = other.bring(make_clip()).json()["film"]
    events = visitor.events("/api/watch", film=film, model=1, query="what happens?")
    scored = next(event["moment"] for event in events if event.get("moment", {}).get("scores"))
    assert scored["scores"].keys() >= {"informative"}
    asked = threading.Thread(target=lambda: answer_of(other.ask("what is it?", picture)))
    asked.start()
    assert [*events][-1]["seen"]["frames"] >= 2
    asked.join(60)


def test_what_is_brought_is_gone_when_the_visitor_is(server, make_clip):
    visitor = Visitor(server[0])
    visitor.bring(make_clip())
    visit = server[2].get(visitor.told["visit"])
    assert [path.suffix for path in visit.folder.iterdir()] == [".mp4"]
    visitor.client.delete("/api/visits")
    assert not visit.folder.exists()
    assert visitor.bring(make_clip()).status_code == 410


def test_who_forgets_may_keep_the_film_or_not(visitor, server, model, make_clip):
    clip = make_clip()
    film = visitor.bring(clip).json()["film"]
    answer_of(visitor.ask("what happens?", film))
    visitor.client.post("/api/forget", json={})
    said = model.chat().show(clip).say("what is it?").text
    assert answer_of(visitor.ask("what is it?", film))["answer"] == said
    visitor.client.post("/api/forget", json={"films": True})
    assert [*server[2].get(visitor.told["visit"]).folder.iterdir()] == []
    assert "open it again" in visitor.ask("what is it?", film)[0]["error"]


@pytest.mark.parametrize(
    ("name", "content", "status", "said"),
    [
        ("large.mp4", b"x" * 600_000, 413, "large.mp4 has more than 0.5 MB"),
        ("broken.mp4", b"not a film", 400, "broken.mp4"),
        ("empty.mp4", b"", 400, "empty.mp4 is empty"),
        ("model.pt", b"x", 400, "no film, picture or sound by its ending"),
        ("voice.wav", b"RIFF", 400, "is a sound, and no model here hears"),
        ("..%5C..%5Cx.mp4", b"x", 400, "x.mp4"),
        ("torn.png", b"\x89PNG", 400, "torn.png"),
    ],
)
def test_what_cannot_be_taken_is_refused_and_nothing_of_it_stays(
    visitor, server, name, content, status, said
):
    answer = visitor.client.put(f"/api/films/{name}", content=content)
    assert (answer.status_code, said in answer.json()["error"]) == (status, True), answer.text
    visit = server[2].get(visitor.told["visit"])
    assert [*visit.folder.iterdir()] == []
    assert str(visit.folder) not in answer.text


@pytest.mark.parametrize(
    ("address", "body", "said"),
    [
        ("/api/ask", {"text": " "}, "there is no question"),
        ("/api/ask", {"text": "a", "models": [7]}, "there is no model 7"),
        ("/api/ask", {"text": "a", "models": ["x"]}, "told by its number"),
        ("/api/ask", {"text": "a", "films": "x"}, "must be a list"),
        ("/api/ask", {"text": None}, "text must be a text, got None"),
        ("/api/explain", {"film": "x", "prompt": "a", "answer": 5}, "answer must be a text"),
        ("/api/ask", {"text": "a" * 2**21}, "more than"),
        ("/api/ask", {"text": "a", "films": ["x"]}, "open it again"),
        ("/api/explain", {"film": "x", "prompt": "a", "answer": "b"}, "open it again"),
    ],
)
def test_what_cannot_be_asked_is_refused(visitor, address, body, said):
    assert said in visitor.client.post(address, json=body).json()["error"]


def test_a_film_that_goes_bad_is_named_as_its_owner_names_it(visitor, server, make_clip):
    film = visitor.bring(make_clip(), "mine.mp4").json()["film"]
    visit = server[2].get(visitor.told["visit"])
    visit.film(film).path.write_bytes(b"gone bad")
    [event] = [event for event in visitor.ask("what?", film) if "waiting" not in event]
    assert "mine.mp4" in event["error"]
    assert str(visit.folder) not in event["error"]


def test_who_stops_listening_takes_the_question_back(visitor, server, make_clip):
    film = visitor.bring(make_clip()).json()["film"]
    before = answer_of(visitor.ask("what is it?", film))
    events = visitor.events("/api/ask", text="and then?", films=[], models=[0])
    next(events)
    events.close()
    after = visitor.ask("what else?")
    assert before["answer"]
    assert answer_of(after)["answer"]
    talk = server[2].get(visitor.told["visit"]).talks[0]
    assert talk.turns[0].text == "what is it?"
    assert len(server[1].line) == 0


@pytest.mark.parametrize(
    "headers",
    [{"host": "evil.example"}, {"origin": "https://evil.example"}, {"origin": "null"}],
)
def test_pages_from_elsewhere_may_not_ask(server, headers):
    answer = httpx.post(f"{server[0]}/api/visits", headers=headers)
    assert answer.status_code == 403


def test_the_page_loads_nothing_from_elsewhere(server):
    page = httpx.get(server[0])
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for name in ("", "page.js", "page.css", "drawing.js"):
        text = httpx.get(f"{server[0]}/{name}").text.replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text
        assert "https://" not in text
    assert httpx.get(f"{server[0]}/app.py").status_code == 404


def data_of(path, kind):
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


@pytest.fixture
def client(server):
    openai = pytest.importorskip("openai", reason="OpenAI's client is not installed")
    return openai.OpenAI(base_url=f"{server[0]}/v1", api_key="none", max_retries=0)


def test_openais_client_asks_about_a_film(client, model, make_clip):
    clip = make_clip()
    url = {"type": "video_url", "video_url": {"url": data_of(clip, "video/mp4")}}
    messages = [{"role": "user", "content": [url, {"type": "text", "text": "what happens?"}]}]
    [name, _] = [one.id for one in client.models.list()]
    answer = client.chat.completions.create(model=name, messages=messages)
    said = model.chat().show(clip).say("what happens?")
    assert answer.choices[0].message.content == said.text
    assert answer.choices[0].finish_reason == ("length" if said.cut else "stop")
    pieces = client.chat.completions.create(model=name, messages=messages, stream=True)
    pieces = [piece.choices[0] for piece in pieces]
    assert "".join(piece.delta.content or "" for piece in pieces) == said.text
    assert pieces[-1].finish_reason == answer.choices[0].finish_reason
    messages += [{"role": "assistant", "content": said.text}, {"role": "user", "content": "why?"}]
    short = client.chat.completions.create(model=name, messages=messages, max_tokens=4)
    assert short.choices[0].message.content
    # no end may come before the fourth token
    assert short.choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([{"type": "video_url", "video_url": {"url": "https://x.org/a.mp4"}}], "fetches no addr"),
        ([{"type": "video_url", "video_url": {"url": "file:///etc/passwd"}}], "reads no paths"),
        ([{"type": "video_url", "video_url": {"url": "data:video/mp4;base64,@"}}], "no base64"),
        ([{"type": "hologram"}], "'hologram'"),
        (5, "expected a text or a list"),
        ([{"type": "text", "text": 5}], "'text'"),
        ([{"type": "video_url", "text": "a", "video_url": {"url": "/a.mp4"}}], "reads no paths"),
        ([{"type": "video_url", "video_url": "https://x.org/a.mp4"}], "fetches no addresses"),
        ("", "empty"),
    ],
)
def test_messages_that_cannot_be_followed_are_refused_by_name(client, server, content, said):
    openai = pytest.importorskip("openai")
    messages = [{"role": "user", "content": content}]
    with pytest.raises(openai.BadRequestError, match=said):
        client.chat.completions.create(model=client.models.list().data[0].id, messages=messages)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_tokens": "a"}, "max_tokens must be a whole number"),
        ({"max_tokens": 1.5}, "max_tokens must be a whole number"),
        ({"max_tokens": 0}, "from 1 to 1048576"),
        ({"max_tokens": 10**30}, "from 1 to 1048576"),
        ({"top_p": 2}, "top_p must be a number from 0 to 1"),
        ({"temperature": True}, "temperature must be a number"),
        ({"response_format": "json"}, "response_format"),
    ],
)
def test_what_is_asked_of_an_answer_is_checked_by_its_own_name(server, given, said):
    body = {"messages": [{"role": "user", "content": "who?"}], **given}
    answer = httpx.post(f"{server[0]}/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


def test_who_waits_for_a_whole_answer_and_leaves_holds_nobody_up():
    slow = mmavlm.load(**{**UNTRAINED, "stage.min_new_tokens": 5000, "stage.max_new_tokens": 5000,
                                      "llm.max_answer_tokens": 6000})  # fmt: skip
    with serving([slow], Limits()) as (address, served, _):
        body = {"messages": [{"role": "user", "content": "who?"}]}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{address}/v1/chat/completions", json=body, timeout=1)
        begun = time.monotonic()
        while len(served.line):
            assert time.monotonic() - begun < 15
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/v1/embeddings", 404), ("GET", "/v1/chat/completions", 405)],
)
def test_openais_clients_are_told_in_their_form_what_is_not_here(server, method, path, status):
    answer = httpx.request(method, server[0] + path)
    assert answer.status_code == status
    assert answer.json()["error"]["message"].startswith(f"{method} {path}: ")
    assert "not" in httpx.post(f"{server[0]}/api/nothing").json()["error"]


def test_nothing_said_of_the_form_is_nothing_asked(server):
    body = {"messages": [{"role": "user", "content": "who?"}], "response_format": None}
    assert httpx.post(f"{server[0]}/v1/chat/completions", json=body, timeout=60).status_code == 200


def test_what_says_that_it_is_too_large_is_refused_before_it_comes(visitor):
    head = {"content-length": str(10**12), "x-visit": visitor.told["visit"]}
    request = visitor.client.build_request("PUT", "/api/films/a.mp4", headers=head, content=b"abc")
    request.headers["content-length"] = str(10**12)
    with socket.create_connection((request.url.host, request.url.port), timeout=10) as line:
        lines = ["PUT /api/films/a.mp4 HTTP/1.1", f"host: {request.url.host}:{request.url.port}"]
        lines += [f"{name}: {value}" for name, value in head.items()]
        line.sendall(("\r\n".join(lines) + "\r\n\r\nabc").encode())
        assert b" 413 " in line.recv(200)


def test_an_answer_that_takes_too_long_is_given_up(model, make_clip):
    with serving([model], Limits(answer_s=1e-6)) as (address, *_):
        visitor = Visitor(address)
        film = visitor.bring(make_clip()).json()["film"]
        assert "given up" in visitor.ask("what happens?", film)[-1]["error"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("port=70000", "port must be"),
        ("max_mb=0", "max_mb"),
        ("ports=1", "did you mean port"),
        ("other=gone/best.ckpt", "gone/best.ckpt does not exist"),
    ],
)
def test_mistakes_of_the_command_are_told_before_torch_is_there(given, said):
    line = [sys.executable, "-m", "mmavlm.serve", "experiment=zero_shot_own_videos", given]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert said in done.stderr


@pytest.mark.slow
def test_the_command_serves_a_checkpoint_until_it_is_interrupted(trained, films, tmp_path):
    checkpoint = trained / "checkpoints/best.ckpt"
    line = [sys.executable, "-m", "mmavlm.serve", f"checkpoint={checkpoint}", "port=0"]
    clip = next((films / "lvu/videos").glob("*.mp4"))
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(line, text=True, cwd=tmp_path, **piped) as server:
        address = next(line.split()[1] for line in server.stdout if line.startswith("open "))
        visitor = Visitor(address)
        assert visitor.told["models"] == [
            {"name": str(checkpoint), "talks": True, "watches": False}
        ]
        film = visitor.bring(clip).json()["film"]
        last = answer_of(visitor.ask("what is the genre of the movie?", film))
        talk = mmavlm.load(checkpoint).chat().show(clip)
        assert last["answer"] == talk.say("what is the genre of the movie?").text
        asked = visitor.events("/api/ask", text="and who is she?", films=[], models=[0])
        next(asked)
        server.send_signal(signal.SIGINT)
        *_, last = asked
        assert "answer" in last or "the server was told to end" in last["error"]
        assert server.wait(30) == 0
        assert "Traceback" not in server.stderr.read()
    assert [*tmp_path.iterdir()] == []


def test_a_port_that_is_taken_is_named(server):
    from mmavlm.serve.running import _socket

    with pytest.raises(Exception, match="port=0 takes any") as error:
        _socket(int(server[0].rpartition(":")[2]))
    assert not isinstance(error.value, DataError)
