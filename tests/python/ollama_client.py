"""Uses a node as any program with Ollama's official client would, and prints what it saw as JSON.

Usage: ollama_client.py HOST MODEL CALLER EMBEDDER: a model that speaks, one that calls a tool, one that makes vectors.
"""

import asyncio
import json
import sys

import ollama

HELLO = [{"role": "user", "content": "Hello, what is a mesh?"}]
WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def weather(city: str) -> str:
    """Tells the weather.

    Args:
        city: where

    Returns:
        str: the weather
    """
    return f"sunny in {city}"


def of_error(call, **arguments) -> list | None:
    try:
        call(**arguments)
    except ollama.ResponseError as error:
        return [error.status_code, error.error]
    return None


def streamed(stream) -> dict:
    """What a stream of `chat` or `generate` said."""
    pieces, thoughts, last = [], [], None
    for part in stream:
        message = getattr(part, "message", None)
        pieces.append(message.content if message else part.response)
        thoughts.append((message or part).thinking)
        last = part
    return {
        "text": "".join(piece for piece in pieces if piece),
        "pieces": sum(1 for piece in pieces if piece),
        "thinking": "".join(thought for thought in thoughts if thought),
        "done": [last.done, last.done_reason],
        "tokens": [last.prompt_eval_count, last.eval_count],
        "timed": last.total_duration > 0,
    }


def tool_round(client: ollama.Client, model: str, caller: str) -> dict:
    """Offers a tool to the one model, whole and as a stream, and shows what a tool said to the other."""
    asked = client.chat(model=caller, messages=WEATHER, tools=[weather])
    called = [[call.function.name, dict(call.function.arguments)] for call in asked.message.tool_calls or []]
    in_stream = [
        [call.function.name, dict(call.function.arguments)]
        for part in client.chat(model=caller, messages=WEATHER, tools=[weather], stream=True)
        for call in part.message.tool_calls or []
    ]
    call = {"function": {"name": "weather", "arguments": {"city": "Paris"}}}
    told = [
        *WEATHER,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_name": "weather", "content": weather("Paris")},
    ]
    answered = client.chat(model=model, messages=told, tools=[weather])
    return {"called": called, "called_in_stream": in_stream, "answered": answered.message.content}


async def asynchronous(host: str, model: str) -> dict:
    client = ollama.AsyncClient(host=host, timeout=30)
    whole = await client.chat(model=model, messages=HELLO)
    stream = await client.chat(model=model, messages=HELLO, stream=True)
    pieces = [part.message.content async for part in stream]
    return {"whole": whole.message.content, "streamed": "".join(pieces)}


def embedded(client: ollama.Client, embedder: str) -> dict:
    several = client.embed(model=embedder, input=["a", "b"])
    one = client.embed(model=embedder, input="a")
    former = client.embeddings(model=embedder, prompt="a")
    return {"several": several.embeddings, "one": one.embeddings, "former": list(former.embedding)}


def main(host: str, model: str, caller: str, embedder: str) -> dict:
    client = ollama.Client(host=host, timeout=30)
    whole = client.chat(model=model, messages=HELLO, options={"temperature": 0.5, "seed": 7, "num_predict": 50})
    thought = client.chat(model=model, messages=HELLO, think=True)
    formatted = client.chat(model=model, messages=HELLO, format=CITY)
    shown = client.show(model)
    return {
        "models": sorted(entry.model for entry in client.list().models),
        "loaded": sorted(entry.model for entry in client.ps().models),
        "capabilities": shown.capabilities,
        "whole": {
            "model": whole.model,
            "text": whole.message.content,
            "done": [whole.done, whole.done_reason],
            "tokens": [whole.prompt_eval_count, whole.eval_count],
        },
        "streamed": streamed(client.chat(model=model, messages=HELLO, stream=True)),
        "latest": client.chat(model=f"{model}:latest", messages=HELLO).message.content,
        "generated": client.generate(model=model, prompt="Hello", system="Be short.").response,
        "generated_in_stream": streamed(client.generate(model=model, prompt="Hello", stream=True)),
        "thought": [thought.message.thinking, thought.message.content],
        "formatted": formatted.message.content,
        "tools": tool_round(client, model, caller),
        "embedded": embedded(client, embedder),
        "asynchronous": asyncio.run(asynchronous(host, model)),
        "unknown_model": of_error(client.chat, model="no-such-model", messages=HELLO),
        "unknown_shown": of_error(client.show, model="no-such-model"),
        "wrong": of_error(client.generate, model=model, prompt="Hello", context=[1]),
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
