"""Uses a node as any program with Anthropic's official client would, and prints what it saw as JSON.

Usage: anthropic_client.py BASE_URL MODEL CALLER: a model that speaks, and one that calls a tool.
"""

import asyncio
import json
import sys

import anthropic

HELLO = [{"role": "user", "content": "Hello, what is a mesh?"}]
WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL = {"name": "weather", "description": "Tells the weather.", "input_schema": CITY}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


def of_message(message) -> dict:
    blocks = message.content
    return {
        "kind": [message.type, message.role, message.model],
        "text": "".join(block.text for block in blocks if block.type == "text"),
        "thinking": "".join(block.thinking for block in blocks if block.type == "thinking"),
        "called": [[block.name, block.input] for block in blocks if block.type == "tool_use"],
        "stopped": message.stop_reason,
        "tokens": [message.usage.input_tokens, message.usage.output_tokens],
    }


def streamed(client: anthropic.Anthropic, **asked) -> dict:
    """What a stream said: its text as it came, the message that the client made of it, the kinds of its events in order."""
    with client.messages.stream(max_tokens=50, **asked) as stream:
        events, pieces = [], []
        for event in stream:
            if event.type == "text":
                pieces.append(event.text)
            # The helper adds events of its own, such as `text`, to those of the wire.
            elif event.type.startswith(("message_", "content_block_")) and event.type not in events:
                events.append(event.type)
        told = of_message(stream.get_final_message())
    return {**told, "pieces": len(pieces), "events": events}


def tool_round(client: anthropic.Anthropic, model: str, caller: str) -> dict:
    """Offers a tool to the one model, whole and as a stream, and shows what a tool said to the other."""
    asked = client.messages.create(model=caller, max_tokens=50, messages=WEATHER, tools=[TOOL], tool_choice={"type": "any"})
    in_stream = streamed(client, model=caller, messages=WEATHER, tools=[TOOL])
    told = [
        *WEATHER,
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "sunny"}]},
    ]
    answered = client.messages.create(model=model, max_tokens=50, messages=told, tools=[TOOL])
    return {
        "called": of_message(asked)["called"],
        "called_in_stream": in_stream["called"],
        "answered": of_message(answered)["text"],
    }


async def asynchronous(base_url: str, model: str) -> dict:
    async with anthropic.AsyncAnthropic(base_url=base_url, api_key="none", max_retries=0, timeout=30) as client:
        whole = await client.messages.create(model=model, max_tokens=50, messages=HELLO)
        async with client.messages.stream(model=model, max_tokens=50, messages=HELLO) as stream:
            pieces = [text async for text in stream.text_stream]
    return {"whole": of_message(whole)["text"], "streamed": "".join(pieces)}


def of_error(call, kind: type[anthropic.APIStatusError], **asked) -> list | None:
    """The status and the type of an error, if it is of the kind that a program waits for."""
    try:
        call(**asked)
    except kind as error:
        return [error.status_code, error.body["error"]["type"]]
    return None


def main(base_url: str, model: str, caller: str) -> dict:
    client = anthropic.Anthropic(base_url=base_url, api_key="none", max_retries=0, timeout=30)
    create = client.messages.create
    system = [{"type": "text", "text": "Be short.", "cache_control": {"type": "ephemeral"}}]
    raw = client.messages.with_raw_response.create(
        # This client has no argument for the temperature any more; those before it had.
        model=model, max_tokens=50, messages=HELLO, system=system, stop_sequences=["END"], extra_body={"temperature": 0.5}
    )
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    seen = create(
        model=model, max_tokens=50, messages=[{"role": "user", "content": [image, {"type": "text", "text": "What is it?"}]}]
    )
    thinking = {"type": "enabled", "budget_tokens": 1024}
    shape = {"format": {"type": "json_schema", "schema": CITY}}
    return {
        "node": raw.headers.get("x-atmo-node"),
        "whole": of_message(raw.parse()),
        "streamed": streamed(client, model=model, messages=HELLO),
        "thought": of_message(create(model=model, max_tokens=2048, messages=HELLO, thinking=thinking)),
        "formatted": of_message(create(model=model, max_tokens=50, messages=HELLO, output_config=shape))["text"],
        "seen": of_message(seen)["text"],
        "tools": tool_round(client, model, caller),
        "counted": client.messages.count_tokens(model=model, messages=HELLO).input_tokens,
        "asynchronous": asyncio.run(asynchronous(base_url, model)),
        "unknown_model": of_error(create, anthropic.NotFoundError, model="no-such-model", max_tokens=50, messages=HELLO),
        "wrong": of_error(create, anthropic.BadRequestError, model=model, max_tokens=50, messages=[]),
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
