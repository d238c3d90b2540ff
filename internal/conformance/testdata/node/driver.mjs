// Runs scenarios with openai-node: one JSON request on standard input, one JSON line per scenario on standard output.
import OpenAI from 'openai';

const tools = [{ type: 'function', function: { name: 'get_weather', description: 'weather of a city',
  parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] } } }];
const schema = { name: 'person', strict: true, schema: {
  type: 'object', additionalProperties: false, required: ['name', 'age'],
  properties: { name: { type: 'string', maxLength: 12 }, age: { type: 'integer' } } } };

const seconds = (began) => (performance.now() - began) / 1000;
const usage = (u) => u && { prompt_tokens: u.prompt_tokens, completion_tokens: u.completion_tokens, total_tokens: u.total_tokens };

function body(s) {
  const out = { model: s.model, messages: [{ role: 'user', content: s.prompt }], max_tokens: s.max_tokens, temperature: 0 };
  if (s.op === 'tools') Object.assign(out, { tools, tool_choice: 'required' });
  else if (s.op === 'json_object') out.response_format = { type: 'json_object' };
  else if (s.op === 'json_schema') out.response_format = { type: 'json_schema', json_schema: schema };
  return out;
}

// How the Responses API ends, in the words of chat completions.
const finish = { completed: 'stop', incomplete: 'length' };

function takeResponse(out, got) {
  const u = got.usage;
  Object.assign(out, { model: got.model, finish_reason: finish[got.status] ?? got.status,
    usage: u && { prompt_tokens: u.input_tokens, completion_tokens: u.output_tokens, total_tokens: u.total_tokens } });
}

async function responses(client, s, out, began) {
  const asked = { model: s.model, input: s.prompt, max_output_tokens: s.max_tokens, temperature: 0 };
  if (!s.stream) {
    const got = await client.responses.create(asked);
    takeResponse(out, got);
    out.text = got.output_text;
    out.request_id = got._request_id ?? '';
    return;
  }
  const { data: events, response } = await client.responses.create({ ...asked, stream: true }).withResponse();
  out.request_id = response.headers.get('x-request-id') ?? '';
  for await (const event of events) {
    out.chunks++;
    if (event.type === 'response.output_text.delta') {
      out.first ??= seconds(began);
      out.text += event.delta;
    } else if (['response.completed', 'response.incomplete', 'response.failed'].includes(event.type)) {
      takeResponse(out, event.response);
    }
  }
}

async function stream(client, s, out, began) {
  const extra = s.usage ? { stream_options: { include_usage: true } } : {};
  const { data: events, response } = await client.chat.completions.create({ ...body(s), ...extra, stream: true }).withResponse();
  out.request_id = response.headers.get('x-request-id') ?? '';
  const calls = [];
  for await (const chunk of events) {
    out.chunks++;
    out.model = chunk.model;
    out.usage = usage(chunk.usage) || out.usage;
    for (const choice of chunk.choices) {
      if (choice.delta.content) {
        out.first ??= seconds(began);
        out.text += choice.delta.content;
      }
      for (const call of choice.delta.tool_calls ?? []) {
        const entry = (calls[call.index] ??= { id: '', name: '', arguments: '' });
        entry.id += call.id ?? '';
        entry.name += call.function?.name ?? '';
        entry.arguments += call.function?.arguments ?? '';
      }
      if (choice.finish_reason) out.finish_reason = choice.finish_reason;
    }
    if (s.cancel_after && out.chunks >= s.cancel_after) {
      events.controller.abort();
      out.cancelled = true;
      return;
    }
  }
  out.tool_calls = calls;
}

async function answer(client, s, out, began) {
  if (s.op === 'models') {
    out.models = (await client.models.list()).data.map((m) => m.id);
  } else if (s.op === 'model') {
    const got = await client.models.retrieve(s.model);
    out.model = got.id;
    out.request_id = got._request_id ?? '';
  } else if (s.op === 'embeddings') {
    const got = await client.embeddings.create({ model: s.model, input: [s.prompt, 'second'] });
    out.model = got.model;
    out.request_id = got._request_id ?? '';
    out.dims = got.data.map((e) => e.embedding.length);
  } else if (s.op === 'responses') {
    await responses(client, s, out, began);
  } else if (s.stream) {
    await stream(client, s, out, began);
  } else {
    const got = await client.chat.completions.create(body(s));
    const { message, finish_reason } = got.choices[0];
    Object.assign(out, { text: message.content ?? '', finish_reason, usage: usage(got.usage), model: got.model, request_id: got._request_id ?? '' });
    out.tool_calls = (message.tool_calls ?? []).map((c) => ({ id: c.id, name: c.function.name, arguments: c.function.arguments }));
  }
}

function fault(err) {
  const text = (value) => (value === undefined || value === null ? '' : String(value));
  return { class: err.constructor.name, message: text(err.message), status: err.status ?? 0, request_id: text(err.requestID),
    type: text(err.type), code: text(err.code), param: text(err.param), body_message: text(err.error?.message) };
}

let input = '';
for await (const piece of process.stdin) input += piece;
const request = JSON.parse(input);
for (const s of request.scenarios) {
  const options = { baseURL: request.base_url, apiKey: s.key || request.api_key, defaultHeaders: s.headers ?? {} };
  if (s.timeout) options.timeout = s.timeout * 1000;
  if (s.max_retries !== undefined && s.max_retries !== null) options.maxRetries = s.max_retries;
  const out = { scenario: s.name, ok: true, text: '', chunks: 0 };
  const began = performance.now();
  try {
    await answer(new OpenAI(options), s, out, began);
  } catch (err) { // whatever the SDK throws is what this driver is here to report
    out.ok = false;
    out.error = fault(err);
  }
  out.elapsed = seconds(began);
  console.log(JSON.stringify(out));
}
