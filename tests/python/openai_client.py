"""Uses an endpoint as any program with the official client would, and prints what it saw as JSON.

Usage: openai_client.py BASE_URL MODEL
"""

import json
import sys

import openai


def main(base_url: str, model: str) -> dict:
    client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=30)
    messages = [{"role": "user", "content": "Hello, what is a mesh?"}]
    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=messages, extra_body={"x_of_this_client": "kept"}
    )
    stream = client.chat.completions.create(
        model=model, messages=messages, stream=True, stream_options={"include_usage": True}
    )
    pieces, tokens = [], None
    for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            pieces.append(chunk.choices[0].delta.content)
        if chunk.usage:
            tokens = chunk.usage.completion_tokens
    routed = client.chat.completions.create(model="auto", messages=messages)
    try:
        client.chat.completions.create(model="no-such-model", messages=messages)
        unknown = None
    except openai.NotFoundError as error:
        unknown = [error.status_code, error.code]
    return {
        "models": [entry.id for entry in client.models.list()],
        "node": raw.headers.get("x-atmo-node"),
        "whole": raw.parse().choices[0].message.content,
        "streamed": "".join(pieces),
        "pieces": len(pieces),
        "tokens": tokens,
        "routed_by_meaning": routed.choices[0].message.content,
        "unknown_model": unknown,
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
