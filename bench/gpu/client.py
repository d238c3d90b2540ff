"""Asks one question with openai-python, as its users do, and tells what came and when."""
import json
import sys
import time

import openai

job = json.load(sys.stdin)
params, extra = {}, {}
for name, value in job["params"].items():  # what the SDK does not know goes where it wants such things
    known = name in ("model", "messages", "temperature", "max_tokens", "response_format", "tools", "tool_choice")
    (params if known else extra)[name] = value
client = openai.OpenAI(base_url=job["base_url"], api_key=job["api_key"], max_retries=job["retries"])
seen = {"status": 200, "text": "", "tool": "", "arguments": "", "finish": "", "model": "", "chunks": 0, "code": "", "message": "",
        "sent": 0.0, "first": 0.0, "end": 0.0, "left": 0.0}


def take(part):
    seen["text"] += part.content or ""
    for call in part.tool_calls or []:
        seen["tool"] += call.function.name or ""
        seen["arguments"] += call.function.arguments or ""


client.models.list()  # what the SDK does once in a process is no part of the answer's time; it wakes nothing
client.chat.completions
seen["sent"] = time.time()
try:
    answer = client.chat.completions.create(**params, stream=job["stream"], extra_body=extra, extra_headers={"x-request-id": job["id"]})
    if job["stream"]:
        for chunk in answer:
            seen["first"] = seen["first"] or time.time()
            seen["chunks"] += 1
            seen["model"] = chunk.model
            for choice in chunk.choices:
                take(choice.delta)
                seen["finish"] = choice.finish_reason or seen["finish"]
            if seen["chunks"] == job["leave_after"]:
                seen["left"] = time.time()
                answer.close()
                break
    else:
        seen["first"] = time.time()
        seen["chunks"] = 1
        seen["model"] = answer.model
        take(answer.choices[0].message)
        seen["finish"] = answer.choices[0].finish_reason
except openai.APIError as error:
    seen["status"] = getattr(error, "status_code", seen["status"])
    seen["code"] = str(getattr(error, "code", None) or type(error).__name__)
    seen["message"] = str(error)
seen["end"] = time.time()
print(json.dumps(seen))
