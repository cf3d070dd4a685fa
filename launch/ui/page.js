
// The page follows its runs: what has changed since is fetched and put in the old one's place.
const main = document.querySelector("main");
const body = `${location.pathname}${location.search || "?"}&part=body`;
let version = "";

const keep = (fresh) => {
  // What the reader has typed, marked, opened and sampled stays.
  const old = [...main.querySelectorAll("form.sample, form.action")];
  fresh.querySelectorAll("form.sample, form.action").forEach((form) => {
    const same = old.find((one) => one.dataset.action === form.dataset.action);
    if (!same) return;
    const [choice, chosen] = [form.querySelector("select"), same.querySelector("select")];
    if (choice && chosen && choice.innerHTML !== chosen.innerHTML) {
      const value = chosen.value;
      chosen.innerHTML = choice.innerHTML;
      chosen.value = value;
    }
    form.replaceWith(same);
  });
  for (const box of main.querySelectorAll(".runs input:checked")) {
    const same = [...fresh.querySelectorAll(".runs input")].find((one) => one.value === box.value);
    if (same) same.checked = true;
  }
  [...main.querySelectorAll("details")].forEach((one, k) => {
    const same = fresh.querySelectorAll("details")[k];
    if (same) same.open = one.open;
  });
  [...main.querySelectorAll(".chart input")].forEach((one, k) => {
    const same = fresh.querySelectorAll(".chart input")[k];
    if (same) same.checked = one.checked;
  });
};

const follow = async () => {
  try {
    const answer = await fetch(body, { headers: version ? { "If-None-Match": version } : {}, cache: "no-store" });
    if (answer.status === 200) {
      version = answer.headers.get("ETag") || "";
      const fresh = document.createElement("main");
      fresh.innerHTML = await answer.text();
      keep(fresh);
      main.replaceChildren(...fresh.childNodes);
      enliven(main);
      listen(main);
    }
    document.body.classList.toggle("lost", answer.status === 401);
  } catch {
    document.body.classList.add("lost");
  }
  setTimeout(follow, document.hidden ? 15000 : 3000);
};

const sample = async (form) => {
  const [button, error, picture] = ["button", ".error", "img"].map((what) => form.querySelector(what));
  const asked = new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ""));
  button.disabled = true;
  try {
    const answer = await fetch(`${form.dataset.action}&${asked}`);
    if (!answer.ok) throw new Error((await answer.json()).detail);
    URL.revokeObjectURL(picture.src);
    picture.src = URL.createObjectURL(await answer.blob());
    [picture.hidden, error.hidden] = [false, true];
  } catch (reason) {
    error.textContent = reason.message;
    error.hidden = false;
  }
  button.disabled = false;
};

const act = async (form) => {
  const [button, said] = ["button", "pre"].map((what) => form.querySelector(what));
  button.disabled = true;
  try {
    const answer = await fetch(form.dataset.action, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(Object.fromEntries(new FormData(form))),
    });
    said.textContent = (await answer.json()).detail;
  } catch (reason) {
    said.textContent = reason.message;
  }
  said.hidden = false;
  button.disabled = false;
};

const listen = (part) => {
  const on = (kind, does) => part.querySelectorAll(`form.${kind}`).forEach((form) => {
    form.onsubmit = (event) => { event.preventDefault(); does(form); };
  });
  on("sample", sample);
  on("action", act);
};

listen(main);
follow();
