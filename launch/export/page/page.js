"use strict";

const $ = (id) => document.getElementById(id);
const SIZES = [128, 192, 256, 384, 512, 768, 1024, 1536];

// ---- the network, in its worker -------------------------------------------------------------------------------------

class Network {
  constructor(facts, kind, advance) {
    this.worker = new Worker("worker.js", { type: "module" });
    this.waiting = new Map();
    this.number = 0;
    this.ended = false;
    this.worker.onmessage = ({ data }) => {
      if (data.id === undefined) return advance(data.here / data.all);
      const { resolve, reject } = this.waiting.get(data.id);
      this.waiting.delete(data.id);
      if (data.error === undefined) resolve(data.answer);
      else reject(new Error(data.error));
    };
    this.worker.onerror = (event) => this.end(new Error(event.message || "the browser cannot start the page's worker"));
    this.ready = this.ask("load", { facts, kind });
  }

  ask(ask, content, transfer = []) {
    return new Promise((resolve, reject) => {
      const id = this.number++;
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, ask, ...content }, transfer);
    });
  }

  run(inputs) { return this.ask("run", { inputs }); }

  end(error = new Error("stopped")) {
    this.ended = true;
    this.worker.terminate();
    for (const { reject } of this.waiting.values()) reject(error);
    this.waiting.clear();
  }
}

// ---- the page's state -----------------------------------------------------------------------------------------------

let facts = null, network = null, busy = false, stopped = false;
// The chosen pictures, by input; and what was made.
const chosen = {};
let made = [];

const inputs = () => facts.inputs;
const photoInput = () => (inputs().content ? "content" : inputs().source ? "source" : null);

function say(text) { $("status").textContent = text; }
function trouble(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
}
function seconds(value) { return value < 10 ? `${value.toFixed(2)} s` : `${value.toFixed(0)} s`; }

function refresh() {
  const wanted = [photoInput(), inputs().style && "style"].filter(Boolean);
  const missing = wanted.some((name) => !chosen[name]);
  $("go").disabled = busy || !network || missing;
  $("device").disabled = busy;
}

// Shows that something goes on while it does.
async function during(work) {
  busy = true;
  stopped = false;
  trouble("");
  refresh();
  try {
    await work();
  } catch (error) {
    say("");
    if (!stopped) trouble(`That did not work: ${error.message}`);
  } finally {
    busy = false;
    $("stop").hidden = true;
    $("bar").value = network ? 1 : 0;
    refresh();
  }
  // One picture is stopped by ending its worker.
  if (network?.ended) await load($("device").value);
}

// ---- controls -------------------------------------------------------------------------------------------------------

function build() {
  const what = { stylizer: "in another style", generator: "new pictures", decoder: "new pictures" }[facts.part] ?? facts.part;
  $("title").textContent = `${facts.run}: ${what}`;
  document.title = `${facts.run} · gesso`;
  $("about").textContent = `${facts.family}, ${facts.part}, ${facts.kimg} kimg · licence of the weights: ${facts.licence}`;
  const photo = photoInput();
  $("pictures").hidden = !photo;
  $("samples").hidden = Boolean(photo);
  $("chance").hidden = Boolean(photo) && !inputs().style_code;
  $("go").textContent = photo ? "Paint" : "Generate";
  $("empty").textContent = photo ? "The picture will be here." : "The pictures will be here.";
  if (photo) buildPictures(photo);
  else buildSamples();
  for (const range of document.querySelectorAll("label > input[type=range]")) {
    range.addEventListener("input", () => (range.nextElementSibling.value = Number(range.value).toFixed(2)));
  }
}

function buildPictures(photo) {
  $("style-drop").hidden = !inputs().style;
  $("alpha-row").hidden = !inputs().content;
  takes($("photo-drop"), photo, $("photo-shown"));
  if (inputs().style) takes($("style-drop"), "style", $("style-shown"));
  if (inputs()[photo].shape[2] === null) {
    $("size-row").hidden = false;
    for (const side of SIZES) $("size").add(new Option(`${side} px`, side, side === 256, side === 256));
  }
  if (inputs().mix) {
    $("mix").hidden = false;
    for (const [number, name] of inputs().mix.names.entries()) {
      const label = document.createElement("label"), range = document.createElement("input"), shown = document.createElement("output");
      Object.assign(range, { type: "range", min: 0, max: 1, step: 0.05, value: number ? 0 : 1, id: `mix-${number}` });
      shown.value = number ? "0.00" : "1.00";
      label.append(name, range, shown);
      $("mix").append(label);
    }
  }
}

function buildSamples() {
  if (inputs().labels) {
    $("class-row").hidden = false;
    $("class").add(new Option("all in turn", ""));
    for (const [number, name] of inputs().labels.names.entries()) $("class").add(new Option(name, number));
  }
  if (inputs().truncation || inputs().latents.bound) {
    $("truncation-row").hidden = false;
    const psi = facts.sampling.truncation_psi ?? 1;
    $("truncation").value = psi;
    $("truncation").nextElementSibling.value = psi.toFixed(2);
  }
}

// A place for a picture: chosen, or dropped there.
function takes(place, name, shown) {
  const file = place.querySelector("input");
  const take = async (blob) => {
    if (!blob) return;
    try {
      chosen[name] = await createImageBitmap(blob);
      chosen[name].called = blob.name.replace(/\.[^.]*$/, "");
      trouble("");
      copied(drawn(chosen[name], ...thumbnail(chosen[name])), shown);
      shown.hidden = false;
    } catch {
      trouble(`${blob.name}: is no picture that this browser can read`);
    }
    refresh();
  };
  file.addEventListener("change", () => take(file.files[0]));
  place.addEventListener("dragover", (event) => { event.preventDefault(); place.classList.add("over"); });
  place.addEventListener("dragleave", () => place.classList.remove("over"));
  place.addEventListener("drop", (event) => {
    event.preventDefault();
    place.classList.remove("over");
    take(event.dataTransfer.files[0]);
  });
}

function thumbnail(picture) {
  const scale = Math.min(1, 260 / Math.max(picture.width, picture.height));
  return [picture.height, picture.width].map((side) => Math.max(1, Math.round(side * scale)));
}

// ---- one picture in another style, or in the other domain -----------------------------------------------------------

function repaintInputs() {
  const longest = Number($("size").value || 256), given = {}, canvases = {};
  for (const name of ["content", "source", "style"]) {
    if (!inputs()[name]) continue;
    canvases[name] = drawn(chosen[name], ...sidesFor(inputs()[name], chosen[name], longest));
    given[name] = toTensor(canvases[name], inputs()[name].shape[1]);
  }
  const [, , height, width] = given[photoInput()].dims;
  if (inputs().alpha) given.alpha = single(Number($("alpha").value));
  if (inputs().mix) given.mix = shares();
  // The noise that gesso itself gives: of seed 0, the same for all pictures of one size.
  if (inputs().noise) given.noise = { type: "float32", data: new Generator(0).normals(height * width), dims: [1, 1, height, width] };
  if (inputs().style_code) {
    const numbers = inputs().style_code.shape[1];
    given.style_code = { type: "float32", data: new Generator(seed()).normals(numbers), dims: [1, numbers] };
  }
  return { given, canvas: canvases[photoInput()] };
}

function shares() {
  const weights = inputs().mix.names.map((_, number) => Number($(`mix-${number}`).value));
  const sum = weights.reduce((one, other) => one + other);
  const data = Float32Array.from(weights, (weight) => (sum ? weight / sum : 1 / weights.length));
  return { type: "float32", data, dims: [1, data.length] };
}

function single(value) { return { type: "float32", data: Float32Array.of(value), dims: [1] }; }
function seed() { return BigInt($("seed").value); }

async function repaint() {
  const { given, canvas } = repaintInputs();
  const [, , height, width] = given[photoInput()].dims;
  // How far the network is it does not say.
  $("bar").removeAttribute("value");
  say(`${width} × ${height} px …`);
  $("stop").hidden = false;
  const found = await network.run(given);
  const alpha = Number($("alpha").value), content = given.content?.data;
  if (content && !inputs().alpha && alpha < 1) {
    for (const [place, value] of found.data.entries()) found.data[place] = content[place] + alpha * (value - content[place]);
  }
  const picture = toCanvas(found);
  made = [picture];
  copied(canvas, $("before"));
  copied(picture, $("after"));
  $("compare").hidden = false;
  $("empty").hidden = true;
  offer("Download the picture", () => save(picture, `${chosen[photoInput()].called}-${facts.run}.png`));
  say(`${width} × ${height} px in ${seconds(found.seconds)}`);
}

// ---- new pictures ---------------------------------------------------------------------------------------------------

// Sample `number` of a seed, as `gesso generate` makes it.
function sampleInputs(number) {
  const dimensions = inputs().latents.shape[1];
  let data = new Generator(mixSeed(seed(), number)).normals(dimensions);
  const psi = Number($("truncation").value), given = {};
  if (inputs().latents.bound && psi < 1) data = truncated(data, inputs().latents.bound).map((value) => psi * value);
  given.latents = { type: "float32", data, dims: [1, dimensions] };
  if (inputs().truncation) given.truncation = single(psi);
  if (inputs().labels) {
    const label = $("class").value === "" ? number % inputs().labels.names.length : Number($("class").value);
    given.labels = { type: "int64", data: BigInt64Array.of(BigInt(label)), dims: [1] };
  }
  return given;
}

async function generate() {
  const count = Number($("count").value), name = `${facts.run}-seed${seed()}`, grid = $("grid");
  made = [];
  grid.replaceChildren();
  grid.hidden = false;
  $("empty").hidden = true;
  $("download").hidden = true;
  $("stop").hidden = false;
  let time = 0;
  for (let number = 0; number < count && !stopped; number++) {
    $("bar").value = number / count;
    say(`picture ${number + 1} of ${count}`);
    const found = await network.run(sampleInputs(number));
    time += found.seconds;
    const canvas = toCanvas(found), button = document.createElement("button");
    button.type = "button";
    button.title = `Download picture ${number}`;
    button.append(canvas);
    button.addEventListener("click", () => save(canvas, `${name}-${number}.png`));
    grid.style.setProperty("--side", `${Math.max(88, Math.min(canvas.width, 256))}px`);
    grid.classList.toggle("small", canvas.width < 128);
    grid.append(button);
    made.push(canvas);
  }
  if (!made.length) return say("");
  offer("Download all as one sheet", () => save(sheet(made), `${name}.png`));
  say(`${made.length} pictures in ${seconds(time)}`);
}

function offer(text, action) {
  $("download").textContent = text;
  $("download").onclick = action;
  $("download").hidden = false;
}

// ---- the beginning --------------------------------------------------------------------------------------------------

async function hasGraphicsCard() {
  try {
    return Boolean(await navigator.gpu?.requestAdapter());
  } catch {
    return false;
  }
}

function load(kind) {
  network?.end();
  network = null;
  return during(async () => {
    say("loading …");
    const loading = new Network(facts, kind, (share) => ($("bar").value = share));
    await loading.ready;
    network = loading;
    say(photoInput() ? "Ready: choose a picture." : "Ready.");
  });
}

async function begin() {
  if (location.protocol === "file:") {
    return trouble("Browsers let no page compute that is opened as a file. In this folder run: python -m http.server 8000, and open http://localhost:8000");
  }
  try {
    facts = await (await fetch("model.json", { cache: "no-cache" })).json();
  } catch (error) {
    return trouble(`model.json cannot be read: ${error.message}`);
  }
  build();
  $("controls").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!$("go").disabled) during(photoInput() ? repaint : generate);
  });
  $("dice").addEventListener("click", () => ($("seed").value = crypto.getRandomValues(new Uint32Array(1))[0]));
  $("split").addEventListener("input", () => $("pair").style.setProperty("--split", `${$("split").value}%`));
  $("stop").addEventListener("click", () => {
    stopped = true;
    if (photoInput()) network.end();
  });
  $("device").addEventListener("change", () => load($("device").value));
  if (await hasGraphicsCard()) {
    $("device-label").hidden = false;
    if (new URLSearchParams(location.search).has("gpu")) $("device").value = "webgpu";
  }
  await load($("device").value);
}

begin();
