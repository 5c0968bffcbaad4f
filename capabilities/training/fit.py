"""Fits what turns descriptions towards requests, and what shortens request vectors: assets/routing/projection.i8.

A description says what a thing is, a request what is wanted; in the model's space they lie apart. A matrix M (384 x 384, starting from the
identity) is fitted so that a request is nearest to the turned description of its own kind or thing (softmax over all of them, Adam, dropout
on requests and descriptions, decay towards the identity). Requests among themselves are compared in their 128 principal directions.

    cargo build --release -p atmo-capabilities --features rten --example place_texts
    python3 capabilities/training/fit.py target/release/examples/place_texts    # needs numpy; about a minute
    cargo run --release -p atmo-capabilities --features rten --example make_exemplars

What it reads: assets/routing/{exemplars.toml,corpus.txt}. The labelled sets are never read here.
"""

import json
import struct
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent / "assets"
DIMS, REDUCED = 384, 128
STEPS, RATE, DECAY, TEMPERATURE = 300, 1e-3, 1e-3, 0.08
DROP_VALUES, DROP_DESCRIPTIONS, BATCH = 0.25, 0.3, 1024
OUT_OF_REACH = -1e3


def unit(vectors):
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def place(program, texts):
    """One centred unit vector per text."""
    out = subprocess.run([program], input=("\n".join(texts) + "\n").encode(), capture_output=True, check=True).stdout
    mean = np.array(json.loads((ROOT / "embedder/background-mean.json").read_text())["mean"], np.float32)
    return unit(unit(np.frombuffer(out, "<f4").reshape(-1, DIMS)) - mean)


def read_corpus():
    things = []
    for line in map(str.strip, (ROOT / "routing/corpus.txt").read_text().splitlines()):
        if line.startswith("= "):
            kinds, word, name, description = (part.strip() for part in line[2:].split("|"))
            texts = [f"{name}: {description}", description, f"{word} {description}"]
            things.append({"kinds": kinds.split(), "texts": texts, "requests": []})
        elif line and not line.startswith("#"):
            things[-1]["requests"].append(line)
    return things


def targets(sets, things):
    """Kinds first, then things: the texts that describe each, and which requests belong to which."""
    place_of = {entry["id"]: number for number, entry in enumerate(sets)}
    described = [entry["about"] for entry in sets] + [thing["texts"] for thing in things]
    covers = [{place_of[kind] for kind in entry.get("covered_by", [])} for entry in sets]
    kinds_of = [{number} for number in range(len(sets))]
    kinds_of += [{place_of[kind] for kind in thing["kinds"]} for thing in things]
    requests = [(text, [number], number) for number, entry in enumerate(sets) for text in entry["exemplars"]]
    for number, thing in enumerate(things):
        kinds = [place_of[kind] for kind in thing["kinds"]]
        requests += [(text, kinds, len(sets) + number) for text in thing["requests"]]
    return described, covers, kinds_of, requests


def labels(requests, kinds_of, covers, kind_count):
    """For each request, which targets are right, and which are neither right nor wrong because they share a kind with it."""
    right = np.zeros((len(requests), len(kinds_of)), bool)
    moot = np.zeros_like(right)
    for row, (_, kinds, own) in enumerate(requests):
        first, kinds = kinds[0], set(kinds)
        for target, theirs in enumerate(kinds_of):
            if target == own or target == first:
                right[row, target] = True
            elif theirs & kinds or theirs & covers[first]:
                moot[row, target] = True
            elif target < kind_count and first in covers[target]:
                moot[row, target] = True
    return right, moot


def fit(requests, right, moot, descriptions, owner):
    """M such that request @ M @ description tells whose request it is."""
    random = np.random.default_rng(0)
    identity = np.eye(DIMS, dtype=np.float32)
    matrix, first, second = identity.copy(), np.zeros_like(identity), np.zeros_like(identity)
    belongs = np.zeros((len(descriptions), right.shape[1]), np.float32)
    belongs[np.arange(len(descriptions)), owner] = 1
    for step in range(1, STEPS + 1):
        batch = random.permutation(len(requests))[:BATCH]
        kept = random.random((len(batch), DIMS)) > DROP_VALUES
        asked = (requests[batch] * kept / (1 - DROP_VALUES)).astype(np.float32)
        scores = asked @ matrix @ descriptions.T / TEMPERATURE
        scores[:, random.random(len(descriptions)) < DROP_DESCRIPTIONS] = OUT_OF_REACH
        scores[moot[batch].astype(np.float32) @ belongs.T > 0] = OUT_OF_REACH
        odds = np.exp(scores - scores.max(1, keepdims=True))
        hits = right[batch].astype(np.float32) @ belongs.T
        hit = (odds * hits).sum(1)
        error = odds / odds.sum(1, keepdims=True) - odds * hits / np.maximum(hit, 1e-20)[:, None]
        error[hit <= 1e-12] = 0
        gradient = asked.T @ (error @ descriptions) / TEMPERATURE / len(batch) + DECAY * (matrix - identity)
        first = 0.9 * first + 0.1 * gradient
        second = 0.99 * second + 0.01 * gradient**2
        rate = RATE * min(1, (STEPS - step) / STEPS * 2)
        matrix -= rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + 1e-8)
    return matrix


def quantised(matrix):
    """Row by row: scale, then int8 values."""
    out = b""
    for row in matrix:
        scale = np.abs(row).max() / 127
        out += struct.pack("<f", scale) + np.round(row / scale).astype(np.int8).tobytes()
    return out


def main(program):
    sets = tomllib.loads((ROOT / "routing/exemplars.toml").read_text())["set"]
    things = read_corpus()
    described, covers, kinds_of, requests = targets(sets, things)
    right, moot = labels(requests, kinds_of, covers, len(sets))
    asked = place(program, [text for text, _, _ in requests])
    descriptions = place(program, [text for texts in described for text in texts])
    owner = np.array([number for number, texts in enumerate(described) for _ in texts])
    matrix = fit(asked, right, moot, descriptions, owner)
    principal = np.linalg.svd(asked - asked.mean(0), full_matrices=False)[2][:REDUCED]
    (ROOT / "routing/projection.i8").write_bytes(b"ATMOPR1\n" + quantised(matrix) + quantised(principal))
    print(f"{len(requests)} requests, {len(descriptions)} descriptions")


if __name__ == "__main__":
    main(sys.argv[1])
