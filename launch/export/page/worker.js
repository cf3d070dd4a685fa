// Holds the network, away from the page, which stays alive while a picture is made. One thread: no server has to send
// special headers. A module worker.

let session = null, output = "";

async function fetched(file, advance) {
  const response = await fetch(`${file.file}?${file.sha256.slice(0, 12)}`);
  if (!response.ok) throw new Error(`${file.file}: the server answers ${response.status}`);
  const bytes = new Uint8Array(file.bytes), reader = response.body.getReader();
  let here = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    if (here + part.value.length > bytes.length) throw new Error(`${file.file}: is longer than it should be`);
    bytes.set(part.value, here);
    here += part.value.length;
    advance(part.value.length);
  }
  if (here < bytes.length) throw new Error(`${file.file}: only ${here} of ${bytes.length} bytes came`);
  return bytes;
}

const answers = {
  async load({ facts, kind }) {
    const { module, binary } = facts.runtimes[kind];
    let here = 0;
    const advance = (bytes) => postMessage({ here: (here += bytes), all: binary.bytes + facts.model.bytes });
    const [runtime, model, ort] = await Promise.all([
      fetched(binary, advance),
      fetched(facts.model, advance),
      import(`./${module.file}?${module.sha256.slice(0, 12)}`),
    ]);
    ort.env.logLevel = "error";
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmBinary = runtime.buffer;
    session = { ort, network: await ort.InferenceSession.create(model, { executionProviders: [kind] }) };
    output = facts.output.name;
    return {};
  },

  // Inputs: by name, {type, data, dims}.
  async run({ inputs }) {
    const { ort, network } = session, began = performance.now();
    const tensors = Object.entries(inputs).map(([name, { type, data, dims }]) => [name, new ort.Tensor(type, data, dims)]);
    const found = (await network.run(Object.fromEntries(tensors), [output]))[output];
    const data = await found.getData();
    for (const [, tensor] of tensors) tensor.dispose();
    return { data: Float32Array.from(data), dims: [...found.dims], seconds: (performance.now() - began) / 1000 };
  },
};

addEventListener("message", async ({ data }) => {
  try {
    postMessage({ id: data.id, answer: await answers[data.ask](data) });
  } catch (error) {
    postMessage({ id: data.id, error: String(error?.message ?? error) });
  }
});
