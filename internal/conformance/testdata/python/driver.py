"""Runs scenarios with openai-python: one JSON request on standard input, one JSON line per scenario on standard output."""

import json
import sys
import time

import openai

TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "weather of a city",
          "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]
SCHEMA = {"name": "person", "strict": True, "schema": {
    "type": "object", "additionalProperties": False, "required": ["name", "age"],
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}}}}


def body(s):
    out = {"model": s["model"], "messages": [{"role": "user", "content": s["prompt"]}], "max_tokens": s["max_tokens"], "temperature": 0}
    if s["op"] == "tools":
        out.update(tools=TOOLS, tool_choice="required")
    elif s["op"] == "json_object":
        out["response_format"] = {"type": "json_object"}
    elif s["op"] == "json_schema":
        out["response_format"] = {"type": "json_schema", "json_schema": SCHEMA}
    return out


def usage(u):
    return u and {"prompt_tokens": u.prompt_tokens, "completion_tokens": u.completion_tokens, "total_tokens": u.total_tokens}


# How the Responses API ends, in the words of chat completions.
FINISH = {"completed": "stop", "incomplete": "length"}


def take_response(out, got):
    out.update(model=got.model, finish_reason=FINISH.get(got.status, got.status))
    out["usage"] = got.usage and {"prompt_tokens": got.usage.input_tokens, "completion_tokens": got.usage.output_tokens,
                                  "total_tokens": got.usage.total_tokens}


def responses(client, s, out, began):
    asked = {"model": s["model"], "input": s["prompt"], "max_output_tokens": s["max_tokens"], "temperature": 0}
    if not s.get("stream"):
        got = client.responses.create(**asked)
        take_response(out, got)
        out.update(text=got.output_text, request_id=got._request_id or "")
        return
    events = client.responses.create(stream=True, **asked)
    out["request_id"] = events.response.headers.get("x-request-id", "")
    for event in events:
        out["chunks"] += 1
        if event.type == "response.output_text.delta":
            out.setdefault("first", time.monotonic() - began)
            out["text"] += event.delta
        elif event.type in ("response.completed", "response.incomplete", "response.failed"):
            take_response(out, event.response)


def stream(client, s, out, began):
    extra = {"stream_options": {"include_usage": True}} if s.get("usage") else {}
    calls = {}
    events = client.chat.completions.create(stream=True, **extra, **body(s))
    out["request_id"] = events.response.headers.get("x-request-id", "")
    for chunk in events:
        out["chunks"] += 1
        out["model"] = chunk.model
        out["usage"] = usage(chunk.usage) or out.get("usage")
        for choice in chunk.choices:
            if choice.delta.content:
                out.setdefault("first", time.monotonic() - began)
                out["text"] += choice.delta.content
            for call in choice.delta.tool_calls or []:
                entry = calls.setdefault(call.index, {"id": "", "name": "", "arguments": ""})
                entry["id"] += call.id or ""
                entry["name"] += call.function.name or ""
                entry["arguments"] += call.function.arguments or ""
            if choice.finish_reason:
                out["finish_reason"] = choice.finish_reason
        if s.get("cancel_after") and out["chunks"] >= s["cancel_after"]:
            events.close()
            out["cancelled"] = True
            return
    out["tool_calls"] = [calls[i] for i in sorted(calls)]


def answer(client, s, out, began):
    op = s["op"]
    if op == "models":
        page = client.models.list()
        out["models"] = [m.id for m in page.data]
    elif op == "model":
        got = client.models.retrieve(s["model"])
        out["model"], out["request_id"] = got.id, got._request_id or ""
    elif op == "embeddings":
        got = client.embeddings.create(model=s["model"], input=[s["prompt"], "second"])
        out["model"], out["request_id"] = got.model, got._request_id or ""
        out["dims"] = [len(e.embedding) for e in got.data]
    elif op == "responses":
        responses(client, s, out, began)
    elif s.get("stream"):
        stream(client, s, out, began)
    else:
        got = client.chat.completions.create(**body(s))
        choice = got.choices[0]
        out.update(text=choice.message.content or "", finish_reason=choice.finish_reason, usage=usage(got.usage),
                   model=got.model, request_id=got._request_id or "")
        out["tool_calls"] = [{"id": c.id, "name": c.function.name, "arguments": c.function.arguments}
                             for c in choice.message.tool_calls or []]


def fault(err):
    text = getattr(err, "message", None) or str(err)
    got = {"class": type(err).__name__, "message": str(text), "status": getattr(err, "status_code", None) or 0,
           "request_id": getattr(err, "request_id", None) or ""}
    parsed = getattr(err, "body", None)
    parsed = parsed if isinstance(parsed, dict) else {}
    for key in ("type", "code", "param"):
        value = getattr(err, key, None)
        got[key] = "" if value is None else str(value)
    got["body_message"] = str(parsed.get("message") or "")
    return got


def main():
    request = json.load(sys.stdin)
    for s in request["scenarios"]:
        options = {"base_url": request["base_url"], "api_key": s.get("key") or request["api_key"], "default_headers": s.get("headers") or {}}
        if s.get("timeout"):
            options["timeout"] = s["timeout"]
        if s.get("max_retries") is not None:
            options["max_retries"] = s["max_retries"]
        out = {"scenario": s["name"], "text": "", "chunks": 0}
        began = time.monotonic()
        with openai.OpenAI(**options) as client:
            try:
                answer(client, s, out, began)
                out["ok"] = True
            except Exception as err:  # whatever the SDK raises is what this driver is here to report
                out["ok"], out["error"] = False, fault(err)
        out["elapsed"] = time.monotonic() - began
        print(json.dumps(out), flush=True)


main()
