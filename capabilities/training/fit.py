"""Fits what turns descriptions towards requests, and what shortens request vectors: assets/routing/projection.i8.

A description says what a thing is, a request what is wanted; in the model's space they lie apart. A matrix M (384 x 384, starting from the
identity) is fitted so that a request is nearest to the turned description of its own kind or thing (softmax over all of them, Adam, dropout
on requests and descriptions, decay towards the identity). It is then refined inside labelled sets, where a request competes with what
stands beside it, together with a second matrix for the description with its name before it. Requests among themselves are compared in
their 128 principal directions.

    cargo build --release -p atmo-capabilities --features rten --example place_texts
    python3 capabilities/training/fit.py target/release/examples/place_texts    # needs numpy; about a minute
    cargo run --release -p atmo-capabilities --features rten --example make_exemplars

What it reads: assets/routing/{exemplars.toml,corpus.txt,dev-set.json,tune-a.json,tune-b.json} and training/sets. The other labelled sets are never read.
"""

import json
import struct
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent / "assets"
DIMS, REDUCED = 384, 128
STEPS, RATE, DECAY, TEMPERATURE = 300, 1e-3, 1e-3, 0.08
DROP_VALUES, DROP_DESCRIPTIONS, BATCH = 0.25, 0.3, 1024
OUT_OF_REACH = -1e3
REFINED = {"steps": 50, "rate": 1e-3, "decay": 1e-2, "temperature": 0.07, "sets": 3, "drop_asked": 0.3, "drop_said": 0.15}
# What the description and the description with its name count for before refining.
VIEWS = (0.6, 0.4)


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


def facts(metadata):
    """Those facts that are words, as src/capability.rs writes them."""
    told = []
    for key, value in metadata.items():
        value = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        if key not in ("family", "quantization") and any(map(str.isalpha, value)) and value not in ("true", "false"):
            told.append(f"{key} {value.translate(str.maketrans('', '', '[]{}' + chr(34))).replace(',', ', ')}")
    return "; ".join(told)


def spoken(text):
    return " ".join(text.split())[:1000]


def labelled(program):
    """For each labelled set: where its requests lie, where both views of its capabilities lie, and who is right for whom."""
    sets = []
    for path in sorted((HERE / "sets").glob("*.json")) + [ROOT / f"routing/{name}.json" for name in ("dev-set", "tune-a", "tune-b")]:
        told = json.loads(path.read_text())
        offered = told["capabilities"]
        described = [spoken(f"{c['type']} {c['description']} {facts(c.get('metadata', {}))}") for c in offered]
        named = [spoken(f"{c['name']}: {c['description']}") for c in offered]
        asked = [spoken(intent["text"]) for intent in told["intents"]]
        right = np.array([[c["id"] in intent["accept"] for c in offered] for intent in told["intents"]])
        views = np.concatenate([place(program, described), place(program, named)], 1)
        sets.append((place(program, asked), views, right))
    return sets


def softmax(scores):
    odds = np.exp(scores - scores.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def refined_gradient(chosen, matrix, random):
    """Of the cross-entropy inside each chosen set, averaged over them."""
    gradient = np.zeros_like(matrix)
    for asked, views, right in chosen:
        asked = asked * (random.random(asked.shape) > REFINED["drop_asked"]) / (1 - REFINED["drop_asked"])
        views = views * (random.random(views.shape) > REFINED["drop_said"])
        turned = views @ matrix
        length = np.linalg.norm(turned, axis=1, keepdims=True)
        turned = turned / length
        scores = asked @ turned.T / REFINED["temperature"]
        error = softmax(scores) - softmax(np.where(right, scores, OUT_OF_REACH))
        wanted = error.T @ asked / REFINED["temperature"] / len(asked) / len(chosen)
        wanted = (wanted - turned * (wanted * turned).sum(1, keepdims=True)) / length
        gradient += views.T @ wanted
    return gradient


def refine(sets, matrix):
    """Two matrices, one below the other, from the one that the corpus gave."""
    random = np.random.default_rng(0)
    before = np.concatenate([matrix * share for share in VIEWS]).astype(np.float32)
    matrix, first, second = before.copy(), np.zeros_like(before), np.zeros_like(before)
    for step in range(1, REFINED["steps"] + 1):
        chosen = [sets[place] for place in random.permutation(len(sets))[: REFINED["sets"]]]
        gradient = refined_gradient(chosen, matrix, random) + REFINED["decay"] * (matrix - before)
        first = 0.9 * first + 0.1 * gradient
        second = 0.98 * second + 0.02 * gradient**2
        rate = REFINED["rate"] * min(1, (REFINED["steps"] - step) / REFINED["steps"] * 2)
        matrix -= rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.98**step)) + 1e-8)
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
    described, named = np.split(refine(labelled(program), matrix.T).transpose(), 2, axis=1)
    matrices = quantised(described) + quantised(named) + quantised(principal)
    (ROOT / "routing/projection.i8").write_bytes(b"ATMOPR2\n" + matrices)
    print(f"{len(requests)} requests, {len(descriptions)} descriptions")


if __name__ == "__main__":
    main(sys.argv[1])
