"""Fits what turns descriptions towards requests, and what shortens request vectors: assets/routing/projection.i8.

A description says what a thing is, a request what is wanted. The encoder was trained to bring them together (finetune.py); what is left is
to weigh the two ways in which a thing is told, its description and the description with its name before it. Two matrices (384 x 384, each
from half the identity) are fitted inside labelled sets, where a request competes with what stands beside it: softmax over all that is
offered, and over all that is offered and "none of these", which is right for what nobody serves; Adam, dropout, decay towards the
beginning. Requests among themselves are compared in their 128 principal directions.

    cargo build --release -p atmo-capabilities --features rten --example place_texts
    python3 capabilities/training/fit.py target/release/examples/place_texts    # needs numpy; about two minutes
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
OUT_OF_REACH = -1e3
FITTED = {"steps": 100, "rate": 1e-3, "decay": 1e-2, "temperature": 0.07, "sets": 3, "drop_asked": 0.3, "drop_said": 0.15}
# The similarity of "none of these", and what telling apart served and unserved requests counts for beside ranking.
NONE, REFUSING = 0.3, 1.0


def unit(vectors):
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def place(program, texts):
    """One centred unit vector per text."""
    out = subprocess.run([program], input=("\n".join(texts) + "\n").encode(), capture_output=True, check=True).stdout
    mean = np.array(json.loads((ROOT / "embedder/background-mean.json").read_text())["mean"], np.float32)
    return unit(unit(np.frombuffer(out, "<f4").reshape(-1, DIMS)) - mean)


def example_requests():
    """Those of every kind, and those of the things in the corpus."""
    sets = tomllib.loads((ROOT / "routing/exemplars.toml").read_text())["set"]
    lines = map(str.strip, (ROOT / "routing/corpus.txt").read_text().splitlines())
    asked = [line for line in lines if line and not line.startswith(("= ", "#"))]
    return [text for entry in sets for text in entry["exemplars"]] + asked


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
    """For each labelled set: where its requests lie, served ones first, where both views of its capabilities lie, which of them can be
    chosen for a request, and which are right; one column more stands for none of them."""
    sets = []
    for path in sorted((HERE / "sets").glob("*.json")) + [ROOT / f"routing/{name}.json" for name in ("dev-set", "tune-a", "tune-b")]:
        told = json.loads(path.read_text())
        offered, unserved = told["capabilities"], told["unserved"]
        described = [spoken(f"{c['type']} {c['description']} {facts(c.get('metadata', {}))}") for c in offered]
        named = [spoken(f"{c['name']}: {c['description']}") for c in offered]
        asked = [spoken(text) for text in [intent["text"] for intent in told["intents"]] + unserved["texts"]]
        right = np.array([[c["id"] in intent["accept"] for c in offered] + [False] for intent in told["intents"]])
        refused = np.tile([False] * len(offered) + [True], (len(unserved["texts"]), 1))
        left = np.tile([c["id"] not in unserved["without"] for c in offered] + [True], (len(unserved["texts"]), 1))
        views = np.concatenate([place(program, described), place(program, named)], 1)
        reach = np.concatenate([np.ones_like(right), left])
        sets.append((place(program, asked), views, reach, np.concatenate([right, refused])))
    return sets


def softmax(scores):
    odds = np.exp(scores - scores.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def cross_entropy_slope(scores, right):
    """What each score adds to minus the log of the share that all right answers have."""
    return softmax(scores) - softmax(np.where(right, scores, OUT_OF_REACH))


def gradient_of(chosen, matrix, random):
    """Of ranking and refusing inside each chosen set, averaged over them."""
    gradient = np.zeros_like(matrix)
    for asked, views, reach, right in chosen:
        asked = asked * (random.random(asked.shape) > FITTED["drop_asked"]) / (1 - FITTED["drop_asked"])
        views = views * (random.random(views.shape) > FITTED["drop_said"])
        turned = views @ matrix
        length = np.linalg.norm(turned, axis=1, keepdims=True)
        turned = turned / length
        scores = np.concatenate([asked @ turned.T, np.full((len(asked), 1), NONE)], 1) / FITTED["temperature"]
        scores = np.where(reach, scores, OUT_OF_REACH)
        served = ~right[:, -1]
        # Unserved requests are few, and count for half as much as all served ones.
        share = np.where(served, REFUSING, REFUSING * served.sum() / max((~served).sum(), 1) / 2)[:, None]
        slope = cross_entropy_slope(scores, right)[:, :-1] * share
        slope[served] += cross_entropy_slope(scores[served, :-1], right[served, :-1])
        wanted = slope.T @ asked / FITTED["temperature"] / served.sum() / len(chosen)
        wanted = (wanted - turned * (wanted * turned).sum(1, keepdims=True)) / length
        gradient += views.T @ wanted
    return gradient


def fit(sets):
    """Two matrices, one below the other."""
    random = np.random.default_rng(0)
    before = np.concatenate([np.eye(DIMS), np.eye(DIMS)]) / 2
    matrix, first, second = before.copy(), np.zeros_like(before), np.zeros_like(before)
    for step in range(1, FITTED["steps"] + 1):
        chosen = [sets[place] for place in random.permutation(len(sets))[: FITTED["sets"]]]
        gradient = gradient_of(chosen, matrix, random) + FITTED["decay"] * (matrix - before)
        first = 0.9 * first + 0.1 * gradient
        second = 0.98 * second + 0.02 * gradient**2
        rate = FITTED["rate"] * min(1, (FITTED["steps"] - step) / FITTED["steps"] * 2)
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
    examples = place(program, example_requests())
    principal = np.linalg.svd(examples - examples.mean(0), full_matrices=False)[2][:REDUCED]
    sets = labelled(program)
    described, named = np.split(fit(sets).transpose(), 2, axis=1)
    matrices = quantised(described) + quantised(named) + quantised(principal)
    (ROOT / "routing/projection.i8").write_bytes(b"ATMOPR2\n" + matrices)
    print(f"{len(sets)} sets, {sum(len(asked) for asked, *_ in sets)} requests, {len(examples)} examples")


if __name__ == "__main__":
    main(sys.argv[1])
