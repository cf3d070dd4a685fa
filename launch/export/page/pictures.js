"use strict";

// Pictures as the network takes and gives them: float32, planes of red, green and blue (or of grey) in [-1, 1].

const LUMA = [0.299, 0.587, 0.114];

// A canvas of the given size with as much of the picture as fills it; transparent places are white.
function drawn(picture, height, width) {
  const canvas = document.createElement("canvas");
  [canvas.height, canvas.width] = [height, width];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  const scale = Math.max(height / picture.height, width / picture.width);
  const [seenWidth, seenHeight] = [width / scale, height / scale];
  const [left, top] = [(picture.width - seenWidth) / 2, (picture.height - seenHeight) / 2];
  context.drawImage(picture, left, top, seenWidth, seenHeight, 0, 0, width, height);
  return canvas;
}

// Height and width for an input: its own where it has one, else the picture's, its longer side at most `longest`.
function sidesFor(input, picture, longest) {
  const [, , height, width] = input.shape;
  if (height !== null) return [height, width];
  const scale = Math.min(1, longest / Math.max(picture.height, picture.width)), step = input.multiple;
  return [picture.height, picture.width].map((side) => Math.max(Math.ceil(16 / step), Math.round((side * scale) / step)) * step);
}

function toTensor(canvas, channels) {
  const { width, height } = canvas, places = width * height, data = new Float32Array(channels * places);
  const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  for (let place = 0; place < places; place++) {
    if (channels === 1) {
      const grey = Math.round(LUMA.reduce((sum, weight, channel) => sum + weight * pixels[4 * place + channel], 0));
      data[place] = grey / 127.5 - 1;
    } else {
      for (let channel = 0; channel < 3; channel++) data[channel * places + place] = pixels[4 * place + channel] / 127.5 - 1;
    }
  }
  return { type: "float32", data, dims: [1, channels, height, width] };
}

function toCanvas({ data, dims: [, channels, height, width] }) {
  const canvas = document.createElement("canvas"), places = width * height;
  [canvas.height, canvas.width] = [height, width];
  const context = canvas.getContext("2d"), image = context.createImageData(width, height);
  for (let place = 0; place < places; place++) {
    for (let channel = 0; channel < 3; channel++) {
      // A clamped array rounds by itself.
      image.data[4 * place + channel] = (data[(channel % channels) * places + place] + 1) * 127.5;
    }
    image.data[4 * place + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

function copied(source, target) {
  [target.width, target.height] = [source.width, source.height];
  target.getContext("2d").drawImage(source, 0, 0);
}

// All pictures on one sheet, in rows.
function sheet(canvases) {
  const columns = Math.ceil(Math.sqrt(canvases.length)), rows = Math.ceil(canvases.length / columns), made = document.createElement("canvas");
  const { width, height } = canvases[0];
  [made.width, made.height] = [columns * width, rows * height];
  const context = made.getContext("2d");
  canvases.forEach((canvas, number) => context.drawImage(canvas, (number % columns) * width, Math.floor(number / columns) * height));
  return made;
}

function save(canvas, name) {
  canvas.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }, "image/png");
}
