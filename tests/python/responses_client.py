"""Uses OpenAI's Responses API as any program with the official client would, and prints what it saw as JSON.

Usage: responses_client.py BASE_URL MODEL CALLER: a model that speaks, and one that calls a tool.
"""

import asyncio
import json
import sys

import openai

HELLO = "Hello, what is a mesh?"
WEATHER = {"role": "user", "content": "What is the weather in Paris?"}
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "name": "weather", "description": "Tells the weather.", "parameters": CITY, "strict": True}


def of_response(response) -> dict:
    usage = response.usage
    return {
        "kind": [response.object, response.status, response.model],
        "text": response.output_text,
        "items": [item.type for item in response.output],
        "called": [[item.name, json.loads(item.arguments)] for item in response.output if item.type == "function_call"],
        "tokens": [usage.input_tokens, usage.output_tokens, usage.total_tokens] if usage else None,
    }


def streamed(client: openai.OpenAI, **asked) -> dict:
    """What a stream said: its text as it came, the response at its end, the kinds of its events in order."""
    events, pieces, numbers, last = [], [], [], None
    for event in client.responses.create(stream=True, **asked):
        numbers.append(event.sequence_number)
        if event.type not in events:
            events.append(event.type)
        if event.type == "response.output_text.delta":
            pieces.append(event.delta)
        if event.type == "response.completed":
            last = event.response
    return {
        **of_response(last),
        "streamed": "".join(pieces),
        "pieces": len(pieces),
        "events": events,
        "in_order": numbers == list(range(len(numbers))),
    }


def tool_round(client: openai.OpenAI, model: str, caller: str) -> dict:
    """Offers a tool to the one model, whole and as a stream, and shows what a tool said to the other."""
    asked = client.responses.create(model=caller, input=[WEATHER], tools=[TOOL], tool_choice="required")
    in_stream = streamed(client, model=caller, input=[WEATHER], tools=[TOOL])
    told = [
        WEATHER,
        {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": "Paris"}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
    ]
    answered = client.responses.create(model=model, input=told, tools=[TOOL])
    return {
        "called": of_response(asked)["called"],
        "called_in_stream": in_stream["called"],
        "answered": answered.output_text,
    }


async def asynchronous(base_url: str, model: str) -> dict:
    async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=30) as client:
        whole = await client.responses.create(model=model, input=HELLO)
        async with client.responses.stream(model=model, input=HELLO) as stream:
            pieces = [event.delta async for event in stream if event.type == "response.output_text.delta"]
            final = await stream.get_final_response()
    return {"whole": whole.output_text, "streamed": "".join(pieces), "final": final.output_text}


def of_error(call, kind: type[openai.APIStatusError], **asked) -> list | None:
    """The status and the code of an error, if it is of the kind that a program waits for."""
    try:
        call(**asked)
    except kind as error:
        return [error.status_code, error.code, error.param]
    return None


def main(base_url: str, model: str, caller: str) -> dict:
    client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=30)
    create = client.responses.create
    raw = client.responses.with_raw_response.create(
        model=model, input=HELLO, instructions="Be short.", max_output_tokens=50, temperature=0.5, store=False
    )
    thought = create(model=model, input=HELLO, reasoning={"effort": "low"})
    schema = {"format": {"type": "json_schema", "name": "city", "schema": CITY, "strict": True}}
    return {
        "models": sorted(entry.id for entry in client.models.list()),
        "node": raw.headers.get("x-atmo-node"),
        "whole": of_response(raw.parse()),
        "streamed": streamed(client, model=model, input=HELLO),
        "thought": of_response(thought),
        "formatted": create(model=model, input=HELLO, text=schema).output_text,
        "tools": tool_round(client, model, caller),
        "asynchronous": asyncio.run(asynchronous(base_url, model)),
        "unknown_model": of_error(create, openai.NotFoundError, model="no-such-model", input=HELLO),
        "not_stored": of_error(create, openai.BadRequestError, model=model, input=HELLO, previous_response_id="resp_1"),
        "wrong": of_error(create, openai.BadRequestError, model=model, input=7),
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
