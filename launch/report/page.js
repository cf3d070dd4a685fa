"use strict";

// The slider over the grids of samples.
const enlivenFilm = (film) => {
  const controls = film.querySelector(".controls");
  if (!controls) return;
  const frames = [...film.querySelectorAll("img")];
  const [button, slider, caption] = ["button", "input", "output"].map((name) => film.querySelector(name));
  let timer = 0;
  const show = (number) => {
    frames.forEach((frame, k) => { frame.hidden = k !== number; });
    caption.textContent = frames[number].alt;
    slider.value = number;
  };
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    button.textContent = "▶";
  };
  button.addEventListener("click", () => {
    if (timer) return stop();
    if (Number(slider.value) === frames.length - 1) show(0);
    button.textContent = "❚❚";
    timer = setInterval(() => {
      show(Number(slider.value) + 1);
      if (Number(slider.value) === frames.length - 1) stop();
    }, 400);
  });
  slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
  controls.hidden = false;
};

// The values under the pointer.
const SVG = "http://www.w3.org/2000/svg";
const short = (value) => Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4)));

const enlivenChart = (chart) => {
  const lines = JSON.parse(chart.dataset.lines);
  const bubble = chart.appendChild(document.createElement("div"));
  bubble.className = "bubble";
  bubble.hidden = true;
  for (const svg of chart.querySelectorAll("svg")) {
    const { x: [x0, x1], y: [y0, y1], log, box: [left, right, top, bottom] } = JSON.parse(svg.dataset.frame);
    const f = log ? Math.log10 : (value) => value;
    const across = (kimg) => left + (kimg - x0) / (x1 - x0) * (right - left);
    const up = (value) => bottom - (f(value) - f(y0)) / (f(y1) - f(y0)) * (bottom - top);
    const layer = svg.appendChild(document.createElementNS(SVG, "g"));
    const clear = () => { layer.replaceChildren(); bubble.hidden = true; };
    const draw = (name, attributes) => {
      const element = layer.appendChild(document.createElementNS(SVG, name));
      for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    };
    svg.addEventListener("pointerleave", clear);
    svg.addEventListener("pointermove", (event) => {
      clear();
      const frame = svg.getBoundingClientRect();
      const kimg = x0 + ((event.clientX - frame.left) / frame.width * svg.viewBox.baseVal.width - left) / (right - left) * (x1 - x0);
      const near = lines.map(({ points }) => points.reduce((a, b) => Math.abs(b[0] - kimg) < Math.abs(a[0] - kimg) ? b : a, [Infinity, 0]));
      const at = near.reduce((a, b) => Math.abs(b[0] - kimg) < Math.abs(a[0] - kimg) ? b : a, [Infinity, 0])[0];
      if (!Number.isFinite(at)) return;
      draw("line", { class: "pointer", x1: across(at), x2: across(at), y1: top, y2: bottom });
      const rows = [`${short(at)} kimg`];
      near.forEach(([x, y], k) => {
        if (!Number.isFinite(x)) return;
        draw("circle", { class: `mark c${k % 6}`, cx: across(x), cy: up(y), r: 3.5 });
        rows.push(lines.length > 1 ? `${lines[k].label} ${short(y)}` : short(y));
      });
      bubble.replaceChildren(...rows.map((text) => {
        const row = document.createElement("div");
        row.textContent = text;
        return row;
      }));
      bubble.hidden = false;
      const half = bubble.offsetWidth / 2;
      const middle = frame.left - chart.getBoundingClientRect().left + across(at) / svg.viewBox.baseVal.width * frame.width;
      bubble.style.left = `${Math.min(Math.max(middle, half), chart.clientWidth - half)}px`;
      bubble.style.top = `${svg.getBoundingClientRect().top - chart.getBoundingClientRect().top}px`;
    });
  }
};

const enliven = (part) => {
  part.querySelectorAll(".film").forEach(enlivenFilm);
  part.querySelectorAll(".chart").forEach(enlivenChart);
};
enliven(document);
