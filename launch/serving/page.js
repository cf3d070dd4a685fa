"use strict";
const $ = id => document.getElementById(id);
const SMALL = 160; // a picture of fewer pixels is shown with each of them as a square
const WORDS = { generate: "Generate", stylize: "Stylize", translate: "Translate" };
let token = sessionStorage.getItem("token") || "";
let model, verb, running;
// Values that a picture's caption, its file name and the next request are made of.
let readers = {};

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes))
    if (key in made && key !== "list") made[key] = value; else made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function note(text, bad = false) {
  $("note").textContent = text;
  $("note").classList.toggle("bad", bad);
}

// ---- the server -----------------------------------------------------------------------------------------------------

async function ask(path, options = {}) {
  for (let tries = 0; ; tries++) {
    const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
    const response = await fetch(path, { ...options, headers });
    if (response.ok) return response;
    const wait = Number(response.headers.get("Retry-After"));
    // The queue is full: it says when to come again.
    if (response.status === 503 && wait && tries < 20) {
      note(`the server is busy: again in ${wait} s`);
      await new Promise(done => setTimeout(done, wait * 1000));
      continue;
    }
    let line = `the server answers ${response.status}`;
    try { line = (await response.json()).detail } catch { /* not in JSON */ }
    throw Object.assign(new Error(line), { status: response.status });
  }
}

async function open() {
  let models;
  try {
    models = await (await ask("models")).json();
  } catch (error) {
    $("door").hidden = error.status !== 401;
    if (error.status !== 401) return document.body.append(error.message);
    $("wrong").hidden = !token;
    $("token").select();
    return;
  }
  sessionStorage.setItem("token", token);
  $("door").hidden = true;
  $("studio").hidden = false;
  for (const each of models) {
    const button = element("button", { type: "button", textContent: each.name, onclick: () => choose(each) });
    button.dataset.name = each.name;
    $("models").append(button);
  }
  choose(models[0]);
}

$("door").onsubmit = event => { event.preventDefault(); token = $("token").value; open() };

// ---- the controls ---------------------------------------------------------------------------------------------------

function choose(chosen) {
  model = chosen;
  for (const button of $("models").children) button.setAttribute("aria-pressed", button.dataset.name === model.name);
  $("about").textContent = model.what;
  document.title = `${model.name} · gesso`;
  $("verbs").replaceChildren(...model.verbs.map(each => {
    const button = element("button", { type: "button", textContent: WORDS[each], onclick: () => show(each) });
    button.setAttribute("role", "tab");
    button.dataset.verb = each;
    return button;
  }));
  $("verbs").hidden = model.verbs.length < 2;
  running?.abort();
  clear();
  show(model.verbs[0]);
}

function clear() {
  $("wall").querySelectorAll("figure").forEach(figure => figure.remove());
  $("empty").hidden = false;
}

function show(chosen) {
  verb = chosen;
  for (const button of $("verbs").children) button.setAttribute("aria-selected", button.dataset.verb === verb);
  readers = {};
  $("fields").replaceChildren();
  $("go").textContent = WORDS[verb];
  note("");
  ({ generate: generating, stylize: stylizing, translate: translating })[verb]();
}

function field(label, input, extra) {
  const head = element("span", { className: "head" }, element("label", { htmlFor: input.id || "", textContent: label }));
  if (extra) head.append(extra);
  const made = element("div", { className: "field" }, head, input);
  $("fields").append(made);
  return made;
}

function numbers(name, label, attributes) {
  const input = element("input", { type: "number", id: name, ...attributes });
  field(label, input);
  readers[name] = () => input.value === "" ? undefined : Number(input.value);
  return input;
}

function slider(name, label, value, low, high, step, into = readers) {
  const input = element("input", { type: "range", id: name, min: low, max: high, step });
  input.value = value;
  const shown = element("output", { textContent: value });
  input.oninput = () => { shown.textContent = input.value };
  const made = field(label, input, shown);
  into[name] = () => Number(input.value);
  return made;
}

function choice(name, label, options) {
  const input = element("select", { id: name }, ...options.map(([value, text]) => element("option", { value, textContent: text })));
  field(label, input);
  readers[name] = () => input.value === "" ? undefined : input.value;
  return input;
}

function drop(name, label, hint, { many = false, optional = false, changed = () => {} } = {}) {
  const input = element("input", { type: "file", id: name, accept: "image/*", multiple: many });
  const box = element("label", { className: "drop", tabIndex: -1 });
  let files = [];
  const fill = list => {
    files = [...list].slice(0, many ? 8 : 1);
    const pictures = files.map(file => element("img", { alt: file.name, src: URL.createObjectURL(file) }));
    box.replaceChildren(...(files.length ? pictures : [hint]), input);
    box.classList.toggle("full", files.length > 0);
    box.classList.toggle("many", files.length > 1);
    changed(files);
  };
  input.onchange = () => input.files.length && fill(input.files);
  box.ondragover = event => { event.preventDefault(); box.classList.add("over") };
  box.ondragleave = () => box.classList.remove("over");
  box.ondrop = event => { event.preventDefault(); box.classList.remove("over"); if (event.dataTransfer.files.length) fill(event.dataTransfer.files) };
  const clear = element("button", { type: "button", className: "hint", textContent: "clear", onclick: () => { input.value = ""; fill([]) } });
  clear.style.cssText = "padding: 0; border: 0; background: none";
  field(label, box, optional || many ? clear : undefined);
  readers[name] = () => files;
  fill([]);
}

function generating() {
  const seed = element("input", { type: "number", id: "seed", min: 0, max: 2 ** 32 - 1, step: 1, value: 0, required: true });
  const dice = element("button", { type: "button", textContent: "Random", onclick: () => { seed.value = Math.floor(Math.random() * 1e6) } });
  field("Seed", element("div", { className: "row" }, seed, dice)).querySelector("label").htmlFor = "seed";
  readers.seed = () => Number(seed.value);
  choice("count", "Pictures", [1, 4, 16, 32].map(count => [count, count === 1 ? "1" : `${count}, from this seed on`])).value = "16";
  if (model.classes) choice("label", "Class", [["", "as they come"], ...Array.from({ length: model.classes }, (_, each) => [each, `${each}`])]);
  const sampling = model.sampling;
  if ("truncation_psi" in sampling) slider("truncation", "Truncation", sampling.truncation_psi ?? 1, 0, 1, .05);
  if (model.samplers.length) choice("sampler", "Sampler", [["", "the recipe's"], ...model.samplers.map(each => [each, each])]);
  if ("steps" in sampling) numbers("steps", "Steps", { min: 1, max: 1000, step: 1, value: sampling.steps });
  if ("guidance" in sampling) slider("guidance", "Guidance", sampling.guidance ?? 1, 0, 8, .1);
}

function stylizing() {
  drop("content", "Picture", "drop a photograph here, or click");
  let shares = {};
  if (model.own_styles.length > 1) {
    choice("style_index", "Style", [...model.own_styles.map((each, number) => [number, each]), ["mix", "a mixture"]]).onchange = event => {
      mixture.hidden = event.target.value !== "mix";
    };
  }
  const mixture = element("div");
  const mix = names => {
    shares = {};
    mixture.replaceChildren();
    mixture.hidden = names.length < 2;
    if (mixture.hidden) return;
    names.forEach((each, number) => mixture.append(slider(`share-${number}`, each, 1, 0, 1, .05, shares)));
  };
  if (!model.own_styles.length)
    drop("style", "Style", "drop one painting or several here, or click", { many: true, changed: files => mix(files.map(file => file.name)) });
  else { mix(model.own_styles); mixture.hidden = true }
  mixture.style.cssText = "display: flex; flex-direction: column; gap: 10px";
  $("fields").append(mixture);
  readers.weights = () => mixture.hidden ? [] : Object.values(shares).map(read => read());
  if (model.alpha) slider("alpha", "Strength (alpha)", 1, 0, 1, .05);
  sizes();
}

function translating() {
  drop("picture", "Picture", "drop a picture here, or click");
  if (model.directions.length > 1) choice("direction", "Direction", model.directions.map(each => [each, each.replaceAll("-", " ")]));
  if (model.takes_style) {
    drop("style", "In the style of (if any)", "drop a picture of the other kind here", { optional: true });
    numbers("style_seed", "or a drawn style, by its seed", { min: 0, step: 1, placeholder: "the model's choice" });
  }
  sizes();
}

function sizes() {
  numbers("size", "Longer side in pixels", { min: 1, max: model.max_side, step: 1, placeholder: "the picture's own" });
}

// ---- making pictures ------------------------------------------------------------------------------------------------

function requests() {
  const read = Object.fromEntries(Object.entries(readers).map(([name, reader]) => [name, reader()]));
  if (verb === "generate") {
    const { count, label, ...body } = read;
    if (label !== undefined) body.label = Number(label);
    return Array.from({ length: Number(count) }, (_, number) => {
      const own = { ...body, seed: body.seed + number };
      return { name: `seed ${own.seed}`, options: { body: JSON.stringify(own), headers: { "Content-Type": "application/json" } } };
    });
  }
  const main = verb === "stylize" ? "content" : "picture";
  if (!read[main].length) throw new Error("choose a picture first");
  if (verb === "stylize" && !model.own_styles.length && !read.style.length) throw new Error("choose a style first");
  const body = new FormData();
  for (const [name, value] of Object.entries(read)) {
    if (value === undefined || value === "mix") continue;
    if (name === "weights" && read.style_index !== "mix" && !(read.style || []).length) continue;
    for (const each of Array.isArray(value) ? value : [value]) body.append(name, each);
  }
  const stem = read[main][0].name.replace(/\.[^.]*$/, "");
  return [{ name: stem, options: { body } }];
}

$("controls").onsubmit = async event => {
  event.preventDefault();
  let jobs;
  try { jobs = requests() } catch (error) { return note(error.message, true) }
  running?.abort();
  const mine = running = new AbortController();
  const path = `models/${model.name}/${verb}`, started = performance.now();
  $("go").disabled = true;
  $("stop").hidden = $("bar").hidden = false;
  // One picture's progress is not known: the bar then moves by itself.
  if (jobs.length === 1) $("bar").removeAttribute("value"); else $("bar").value = 0;
  $("bar").max = jobs.length;
  clear();
  $("empty").hidden = true;
  $("wall").classList.toggle("single", jobs.length === 1);
  const figures = jobs.map(job => $("wall").appendChild(element("figure", {}, element("div", { className: "pending" }), element("figcaption", {}, element("span", { textContent: job.name })))));
  let done = 0, batches = 0;
  const tick = setInterval(() => note(`${done} of ${jobs.length}, ${((performance.now() - started) / 1000).toFixed(0)} s`), 500);
  try {
    await Promise.all(jobs.map(async (job, number) => {
      const response = await ask(path, { method: "POST", signal: mine.signal, ...job.options });
      const batch = Number(response.headers.get("X-Gesso-Batch"));
      hang(figures[number], job.name, await response.blob());
      batches += 1 / batch;
      done++;
      if (jobs.length > 1) $("bar").value = done;
    }));
    const seconds = (performance.now() - started) / 1000;
    note(`${jobs.length === 1 ? "done" : `${jobs.length} pictures in ${Math.round(batches)} batches`}, ${seconds.toFixed(1)} s`);
  } catch (error) {
    mine.abort();
    figures.filter(figure => !figure.querySelector("img")).forEach(figure => figure.remove());
    $("empty").hidden = $("wall").querySelector("figure") !== null;
    note(error.name === "AbortError" ? "stopped" : error.message, error.name !== "AbortError");
  } finally {
    clearInterval(tick);
    $("go").disabled = false;
    $("stop").hidden = $("bar").hidden = true;
  }
};

$("stop").onclick = () => running?.abort();

function hang(figure, name, blob) {
  const url = URL.createObjectURL(blob), ending = blob.type.split("/")[1].replace("jpeg", "jpg");
  const image = element("img", { alt: name, src: url });
  image.onload = () => {
    image.classList.toggle("small", Math.max(image.naturalWidth, image.naturalHeight) <= SMALL);
    // Larger than it is only as far as one would otherwise see nothing.
    figure.style.maxWidth = `${Math.max(image.naturalWidth, 440)}px`;
  };
  figure.querySelector(".pending").replaceWith(element("button", { type: "button", className: "frame", title: "larger", onclick: () => enlarge(image) }, image));
  const file = `${model.name}-${name}.${ending}`.replaceAll(" ", "-");
  figure.querySelector("figcaption").append(element("a", { href: url, download: file, textContent: "download" }));
}

function enlarge(image) {
  const large = $("large").querySelector("img");
  large.src = image.src;
  large.alt = image.alt;
  large.className = image.className;
  $("large").showModal();
}

open();
