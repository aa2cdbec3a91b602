import { Timeline, clock } from "/drawing.js";

const of = (id) => document.getElementById(id);
const said = { over: "The server has begun anew. Your film was opened again; ask once more." };
let visit = null, models = [], film = null, waiting = [], asked = [], running = null;
const timeline = new Timeline(of("timeline"), seek);

function element(name, text = "", kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function notice(text, warn = true) {
  of("notice").textContent = text ?? "";
  of("notice").hidden = !text;
  of("notice").className = warn ? "warn" : "faint";
}

async function call(method, address, body, signal) {
  const headers = visit ? { "x-visit": visit } : {};
  if (body !== undefined) headers["content-type"] = "application/json";
  let answer;
  try {
    answer = await fetch(address, { method, headers, signal, body: body && JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is it still running?");
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  const error = new Error(told.error ?? `The server says ${answer.status}.`);
  error.gone = answer.status === 410;
  throw error;
}

async function begin() {
  visit = null;
  const told = await (await call("POST", "/api/visits")).json();
  visit = told.visit;
  models = told.models;
  of("models").textContent = models.map((model) => model.name).join(" and ");
  of("ask").hidden = !models.some((model) => model.talks);
  const { max_mb, max_minutes, keep_minutes } = told.limits;
  of("limits").textContent = `At most ${max_mb} MB and ${max_minutes} minutes; gone after ${keep_minutes} minutes of silence.`;
}

// Do something for this visit; if the server knows it no more, begin another and open the film again.
async function visiting(work) {
  try {
    return await work();
  } catch (error) {
    if (!error.gone) throw error;
    await begin();
    if (film?.file) await open(film.file);
    throw new Error(said.over);
  }
}

function sent(file) {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    request.open("PUT", `/api/films/${encodeURIComponent(file.name)}`);
    request.setRequestHeader("x-visit", visit);
    request.upload.onprogress = (event) => { of("coming").value = event.loaded / event.total; };
    request.onerror = () => failed(new Error("The film did not arrive: too large, or the server is gone."));
    request.onload = () => {
      const told = JSON.parse(request.responseText || "{}");
      const error = new Error(told.error ?? `The server says ${request.status}.`);
      error.gone = request.status === 410;
      request.status < 300 ? done(told) : failed(error);
    };
    request.send(file);
  });
}

async function open(file) {
  notice("");
  of("coming").hidden = false;
  try {
    if (film && film.file !== file) {
      await call("POST", "/api/forget", { films: true });  // another film is another conversation
      of("turns").replaceChildren();
      film = null;
    }
    const told = await sent(file);
    film = { ...told, name: file.name, file };
    waiting = [film.film];
    asked = [];
    show(file, told);
  } finally {
    if (!film) nothingShown();
    of("coming").hidden = true;
    of("coming").value = 0;
  }
}

function show(file, told) {
  const kind = { film: "video", picture: "img", sound: "audio" }[told.kind];
  const player = element(kind);
  player.src = URL.createObjectURL(file);
  if (kind !== "img") player.controls = true;
  player.onerror = () => of("player").replaceChildren(element("p", "This browser cannot play it; the model sees it all the same.", "faint"));
  player.ontimeupdate = () => timeline.at(player.currentTime);
  of("player").replaceChildren(player);
  of("name").textContent = file.name;
  of("drop").hidden = true;
  of("shown").hidden = false;
  of("legend").hidden = true;
  of("watch").hidden = !(told.kind === "film" && models.some((model) => model.watches));
  timeline.clear(told.duration_s ?? 0);
}

function seek(second) {
  const player = of("player").querySelector("video, audio");
  if (player) player.currentTime = second;
}

async function* events(address, body, signal) {
  const reader = (await call("POST", address, body, signal)).body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  while (true) {
    let came;
    try {
      came = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("The server went away in the middle of the answer. Ask again.");
    }
    if (came.done) return;
    const lines = (rest + came.value).split("\n");
    rest = lines.pop();
    for (const line of lines.filter(Boolean)) {
      const event = JSON.parse(line);
      if (event.error) throw new Error(event.error);
      notice(event.waiting ? `${event.waiting} before you …` : "", false);
      yield event;
    }
  }
}

async function run(work) {
  if (running) return;
  running = new AbortController();
  of("send").disabled = true;
  of("stop").hidden = false;
  try {
    notice("");
    await visiting(() => work(running.signal));
  } catch (error) {
    notice(error.name === "AbortError" ? "Stopped." : error.message);
  } finally {
    running = null;
    of("send").disabled = false;
    of("stop").hidden = true;
  }
}

function talking() {
  return models.map((model, number) => (model.talks ? number : -1)).filter((number) => number >= 0);
}

function turn(text) {
  const place = element("li");
  place.append(element("div", text, "question"));
  const answers = element("div", "", "answers");
  place.append(answers);
  of("turns").append(place);
  return models.map((model) => {
    if (!model.talks) return null;
    const card = element("div", "", "answer");
    if (talking().length > 1) card.append(element("div", model.name, "by"));
    const text = element("div", "", "said");
    card.append(text);
    answers.append(card);
    return { card, text };
  });
}

async function ask(text, signal) {
  const cards = turn(text);
  const lines = [...asked, text];
  const place = of("turns").lastElementChild;
  place.scrollIntoView({ block: "nearest" });
  let whole = false;
  try {
    const request = { text, films: waiting, models: talking() };
    for await (const event of events("/api/ask", request, signal)) {
      const card = cards[event.model];
      if (event.piece) card.text.textContent += event.piece;
      if (event.failed) card.text.append(element("span", event.failed, "warn"));
      if (event.answer !== undefined) finished(card, event, lines);
    }
    whole = true;
    asked.push(text);
    waiting = [];
  } finally {
    if (!whole) {
      place.remove();
      of("text").value ||= text;
    }
  }
}

function finished({ card, text: place }, event, lines) {
  place.textContent = event.answer || "(nothing)";
  const first = event.first_s === null ? "" : `, the first word after ${event.first_s.toFixed(1)} s`;
  const cut = event.cut ? ", cut at stage.max_new_tokens" : "";
  const percent = `probability ${event.probability.toPrecision(2)}, ${event.seconds.toFixed(1)} s${first}${cut}`;
  const doing = element("div", "", "doing");
  doing.append(element("span", percent, "faint"));
  if (film?.kind === "film" && event.answer && lines.length === 1) doing.append(button("Why?", () => why(card, event, lines[0])));
  const line = command(event.model, lines);
  doing.append(button("Copy the command", () => {
    navigator.clipboard?.writeText(line).catch(() => {});
    card.append(element("pre", line));
  }));
  card.append(doing);
}

function button(text, work) {
  const made = element("button", text);
  made.type = "button";
  made.onclick = () => { made.disabled = true; work(); };
  return made;
}

function quoted(text) {
  return /^[\w./=:-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

function command(number, lines) {
  const shown = film ? ` ${quoted(`${{ film: "video", picture: "image", sound: "audio" }[film.kind]}=${film.name}`)}` : "";
  return `mmavlm chat ${quoted(`checkpoint=${models[number].name}`)}${shown} <<'END'\n${lines.join("\n")}\nEND`;
}

function why(card, event, prompt) {
  run(async (signal) => {
    notice("Parts of the film are hidden, one after the other …", false);
    const request = { film: film.film, model: event.model, prompt, answer: event.answer };
    for await (const told of events("/api/explain", request, signal)) {
      if (!told.explained) continue;
      timeline.explain(told.explained);
      of("legend").textContent = "A row for each slot of the memory: which frames it holds. Green: where the answer looked. Click to go there.";
      of("legend").hidden = false;
      card.append(bars(told.explained.log_prob), ...told.explained.sentences.map((text) => element("p", text, "faint")));
    }
  });
}

// Bars are shares of the highest probability. That of a long answer is too small to be read, so
// its logarithm stands beside the bar.
const SMALL = Math.log(1e-4);

function bars(logProb) {
  const place = element("div", "", "bars");
  const most = Math.max(...Object.values(logProb));
  for (const [name, value] of Object.entries(logProb)) {
    const meter = element("meter");
    meter.max = 1;
    meter.value = Math.exp(value - most);
    meter.setAttribute("aria-label", `probability ${name}`);
    const told = most < SMALL ? `log ${value.toFixed(1)}` : Math.exp(value).toPrecision(2);
    place.append(element("span", name), meter, element("span", told));
  }
  return place;
}

async function watch(query, signal) {
  const number = models.findIndex((model) => model.watches);
  const place = element("li");
  place.append(element("div", query || "(watching)", "question"));
  of("turns").append(place);
  timeline.clear(film.duration_s ?? 0);
  seek(0);
  of("player").querySelector("video")?.play().catch(() => {});
  of("legend").textContent = "Scores of each frame; a dot is a reply. Click to go there.";
  of("legend").hidden = false;
  for await (const { moment, seen } of events("/api/watch", { film: film.film, model: number, query }, signal)) {
    if (seen) place.append(element("p", `${seen.frames} frames, ${seen.frame_s.toPrecision(2)} s each`, "faint"));
    if (!moment) continue;
    timeline.moment({ time_s: 0, ...moment });
    if (!moment.reply) continue;
    const line = element("p", `${clock(moment.time_s ?? 0)}  ${moment.reply}`, "link said");
    line.onclick = () => seek(moment.time_s ?? 0);
    place.append(line);
  }
}

function nothingShown() {
  of("shown").hidden = true;
  of("drop").hidden = false;
}

async function anew() {
  running?.abort();
  of("turns").replaceChildren();
  notice("");
  asked = [];
  waiting = film ? [film.film] : [];
  await visiting(() => call("POST", "/api/forget", {})).catch((error) => notice(error.message));
}

async function opened(file) {
  try {
    await open(file);
  } catch (error) {
    if (!error.gone) throw error;
    await begin();
    await open(file);
  }
}

function taken(files) {
  if (files.length) run(() => opened(files[0]));
}

for (const id of ["file", "other"]) of(id).onchange = (event) => { taken(event.target.files); event.target.value = ""; };
for (const name of ["dragover", "dragleave", "drop"]) {
  of("film").addEventListener(name, (event) => {
    event.preventDefault();
    of("film").classList.toggle("over", name === "dragover");
    if (name === "drop") taken(event.dataTransfer.files);
  });
}
of("ask").onsubmit = (event) => {
  event.preventDefault();
  const text = of("text").value.trim();
  if (!text || running) return;
  of("text").value = "";
  run((signal) => ask(text, signal));
};
of("text").onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); of("ask").requestSubmit(); }
};
of("watch").onsubmit = (event) => { event.preventDefault(); run((signal) => watch(of("query").value.trim(), signal)); };
of("stop").onclick = () => running?.abort();
of("again").onclick = anew;
window.addEventListener("pagehide", () => visit && fetch("/api/visits", { method: "DELETE", headers: { "x-visit": visit }, keepalive: true }));
begin().catch((error) => notice(error.message));
