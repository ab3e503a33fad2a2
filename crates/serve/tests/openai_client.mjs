// Uses a gateway through the official `openai` client for Node.
//
//     node openai_client.mjs MODULES BASE_URL KEY MODEL MISSING_MODEL TEACHER BUSY_URL BUSY_KEY
//
// MODULES is the folder `node_modules` that has the client; the other arguments are as in `openai_client.py`. Prints `ok`
// and ends with 0 where everything is as the client expects it.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

const [modules, baseURL, apiKey, model, missing, teacher, busyURL, busyKey] = process.argv.slice(2);
const OpenAI = createRequire(`${modules}/`)("openai").default;
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 60_000 });
const messages = [{ role: "user", content: "Tell me of the sea." }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false };
const weather = { name: "weather", description: "of a city", parameters };

async function refused(kind, code, wrong, param) {
  await assert.rejects(wrong, (error) => {
    assert.ok(error instanceof kind, error);
    assert.equal(error.code, code);
    assert.ok(error.requestID, "every answer has an id");
    if (param) assert.equal(error.param, param);
    return true;
  });
}

async function all(iterable) {
  const items = [];
  for await (const item of iterable) items.push(item);
  return items;
}

const steps = {
  async models() {
    const names = (await all(client.models.list())).map((one) => one.id);
    assert.ok(names.includes(model) && names.includes(teacher), names);
    assert.equal((await client.models.retrieve(model)).id, model);
  },

  async chat() {
    const { data, request_id } = await client.chat.completions.create({ model, messages, max_tokens: 12 }).withResponse();
    assert.ok(data.choices[0].message.content && data.id.includes(request_id));
    const chunks = await all(await client.chat.completions.create({
      model, messages, max_tokens: 12, stream: true, stream_options: { include_usage: true },
    }));
    assert.equal(chunks[0].choices[0].delta.role, "assistant");
    assert.ok(chunks.at(-1).usage.completion_tokens > 0);
    const helper = client.chat.completions.stream({ model, messages, max_tokens: 12 });
    assert.ok(await helper.finalContent());
    const text = await client.completions.create({ model, prompt: "Once", max_tokens: 4 });
    assert.ok(text.choices[0].text);
  },

  async tools() {
    let cities = [];
    const runner = client.chat.completions.runTools({
      model: teacher,
      messages: [{ role: "user", content: "How hot is it?" }],
      stream: true,
      tools: [{ type: "function", function: { ...weather, parse: JSON.parse, function: ({ city }) => { cities.push(city); return "41 degrees"; } } }],
    });
    const said = await runner.finalContent();
    assert.deepEqual(cities, ["Basra", "Kufa"]);
    assert.match(said, /41 degrees/);
  },

  async structured() {
    const schema = { type: "object", properties: { city: { type: "string" }, degrees: { type: "integer" } } };
    const response_format = { type: "json_schema", json_schema: { name: "report", strict: true, schema } };
    const answer = await client.chat.completions.parse({ model: teacher, messages, response_format });
    assert.deepEqual(answer.choices[0].message.parsed ?? JSON.parse(answer.choices[0].message.content), { city: "Basra", degrees: 41 });
    await refused(OpenAI.BadRequestError, "unsupported_parameter", () => client.chat.completions.create({ model, messages, response_format }), "response_format");
  },

  async embeddings() {
    const coded = await client.embeddings.create({ model: teacher, input: ["one", "two"], dimensions: 3 });
    const plain = await client.embeddings.create({ model: teacher, input: ["one", "two"], dimensions: 3, encoding_format: "float" });
    assert.equal(coded.data.length, 2);
    for (const place of [0, 1]) {
      const rounded = Array.from(coded.data[place].embedding, (number) => Number(number.toFixed(6)));
      assert.deepEqual(rounded, plain.data[place].embedding);
    }
  },

  async responses() {
    const answer = await client.responses.create({ model, input: "Tell me of the sea.", max_output_tokens: 12 });
    assert.ok(answer.output_text && answer.usage.total_tokens > 0);
    const events = await all(await client.responses.create({ model, input: "Tell me of the sea.", stream: true }));
    assert.deepEqual(events.map((event) => event.sequence_number), events.map((_, place) => place));
    assert.equal(events[0].type, "response.created");
    assert.equal(events.at(-1).type, "response.completed");
    const helper = client.responses.stream({ model: teacher, input: "How hot is it?", tools: [{ type: "function", ...weather, strict: true }] });
    const final = await helper.finalResponse();
    assert.deepEqual(final.output.map((call) => JSON.parse(call.arguments).city), ["Basra", "Kufa"]);
    await refused(OpenAI.BadRequestError, "unsupported_parameter", () => client.responses.create({ model, input: "x", previous_response_id: "resp_1" }), "previous_response_id");
  },

  async errors() {
    await refused(OpenAI.NotFoundError, "model_not_found", () => client.chat.completions.create({ model: missing, messages }));
    await refused(OpenAI.BadRequestError, "invalid_value", () => client.chat.completions.create({ model, messages: [] }));
    await refused(OpenAI.AuthenticationError, "invalid_api_key", () => new OpenAI({ baseURL, apiKey: "wrong", maxRetries: 0 }).models.list());
  },

  async busy() {
    const there = new OpenAI({ baseURL: busyURL, apiKey: busyKey, maxRetries: 0, timeout: 60_000 });
    const held = await there.chat.completions.create({ model, messages: [{ role: "user", content: "hold" }], max_tokens: 4, stream: true });
    const reading = held[Symbol.asyncIterator]();
    await reading.next();
    await refused(OpenAI.RateLimitError, "concurrency_limit_exceeded", () => there.chat.completions.create({ model, messages, max_tokens: 4 }));
    const after = await there.chat.completions.create({ model, messages, max_tokens: 4 }, { maxRetries: 5 });
    assert.ok(after.choices[0].message.content);
    let last;
    for (let next = await reading.next(); !next.done; next = await reading.next()) last = next.value;
    assert.equal(last.choices[0].finish_reason, "stop");
    await refused(OpenAI.RateLimitError, "insufficient_quota", () => there.chat.completions.create({ model, messages, max_tokens: 100 }, { maxRetries: 5 }));
  },
};

for (const [name, step] of Object.entries(steps)) {
  try {
    await step();
  } catch (error) {
    console.error(`${name}:`, error);
    process.exit(1);
  }
}
console.log("ok");
