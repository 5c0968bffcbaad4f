"""Fine-tunes the sentence encoder for routing: assets/embedder/minilm-l6-routing-w8.onnx.

all-MiniLM-L6-v2 was trained to place sentences of the same meaning together. Routing compares two sorts of text that say different things
of one matter: what somebody wants, and what an owner says a thing is. Here both are trained to meet, inside labelled sets, where a request
competes with everything else that one mesh offers. Three losses are added up, all of them a softmax over cosines with more than one right
answer (InfoNCE, van den Oord et al. 2018; several positives inside the sum, as in MIL-NCE, Miech et al. 2020):
 - ranked: a served request against the descriptions of its set;
 - refused: the same beside "none of these", a constant similarity, which is the right answer to what nobody serves;
 - kinds: example requests of exemplars.toml against others of their kind and what owners say of it.
Tokens and descriptions are dropped at random, as a description is worded in many ways. The embedding tables stay as they are: they hold
half the weights, and words that no set uses must not be left behind. Cosines are taken from the middle in background-mean.json, as in
routing, so that file stays too.

The base model is the file that this one has replaced, all-MiniLM-L6-v2 as ONNX with int8 weights; `git log --diff-filter=D --
capabilities/assets/embedder` names the commit that took it away. Any ONNX file of that graph and these names will do.

    git show COMMIT^:capabilities/assets/embedder/minilm-l6-v2-w8.onnx > base.onnx
    pip install jax optax onnx tokenizers
    python3 capabilities/training/finetune.py base.onnx --save weights.npz       # half an hour on two cores, 4 GB
    python3 capabilities/training/finetune.py base.onnx --weights weights.npz    # only writes the model; seconds

and then what training/fit.py says. The seed is fixed: the same machine gives the same weights. What it reads: training/sets and
assets/routing/{dev-set,tune-a,tune-b}.json, exemplars.toml. The sets held out (heldout-*, unseen-*) are never read.
"""

import argparse
import json
import time
import tomllib
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from fit import facts, spoken

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent / "assets"
MODEL = ROOT / "embedder/minilm-l6-routing-w8.onnx"
NAME = "minilm-l6-routing"
LAYERS, HEADS, DIMS = 6, 12, 384
FROZEN = ("wemb", "temb", "pemb")
OUT_OF_REACH = -1e4

EPOCHS, RATE, WARM_UP, RATE_LAST = 4, 3e-5, 0.1, 0.05
# Of one step: capabilities at most, served and unserved requests, tokens of a request and of a description.
THINGS, SERVED, UNSERVED, ASKED_TOKENS, TOLD_TOKENS = 28, 64, 16, 32, 56
KINDS = 16
TEMPERATURE, KINDS_TEMPERATURE = 0.05, 0.07
# The cosine at which "none of these" is as likely as a description.
NONE = 0.30
WEIGHTS = {"ranked": 1.0, "refused": 0.5, "kinds": 0.4}
# What two exemplars of a kind and a sentence about it count for.
KIND_VIEWS = (0.35, 0.35, 0.3)
DROP_TOKENS, DROP_THINGS = 0.08, 0.15
SEPARATOR = 102


# The model's file.


def read_model(path):
    """The tensors of the graph by name, weights with their scales multiplied in."""
    tensors = {entry.name: numpy_helper.to_array(entry) for entry in onnx.load(path).graph.initializer}
    weights = {}
    for name, value in tensors.items():
        if name.endswith("_q"):
            weights[name[:-2]] = value.astype(np.float32) * tensors[f"{name[:-2]}_s"]
        elif not name.endswith("_s") and value.dtype == np.float32 and value.size > 1:
            weights[name] = value
    return weights


def write_model(base, weights, path):
    """The graph of `base` with `weights` in place of its own: int8 with one scale for each output where the base has it so."""
    model = onnx.load(base)
    tensors = {entry.name: entry for entry in model.graph.initializer}
    for name, value in weights.items():
        if name not in tensors and f"{name}_q" not in tensors:
            raise SystemExit(f"{base} has no tensor {name}")
        if f"{name}_q" in tensors:
            scale = np.abs(value).max(0, keepdims=True) / 127
            put(tensors[f"{name}_s"], scale.astype(np.float32))
            put(tensors[f"{name}_q"], np.round(value / scale).astype(np.int8))
        else:
            put(tensors[name], value.astype(np.float32))
    model.graph.name = NAME
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    print(f"{path}: {path.stat().st_size} bytes")


def put(tensor, value):
    assert list(tensor.dims) == list(value.shape), tensor.name
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


# What is learned from.


def read_sets(without):
    """The labelled sets: what is offered, both ways that it is told, what is asked, and who is right for whom."""
    paths = sorted((HERE / "sets").glob("*.json")) + [ROOT / f"routing/{name}.json" for name in ("dev-set", "tune-a", "tune-b")]
    return [read_set(json.loads(path.read_text())) for path in paths if path.stem not in without]


def read_set(told):
    offered, unserved = told["capabilities"], told["unserved"]
    right = np.array([[c["id"] in intent["accept"] for c in offered] for intent in told["intents"]])
    spare = ((0, 0), (0, THINGS - len(offered)))
    return {
        "described": [spoken(f"{c['type']} {c['description']} {facts(c.get('metadata', {}))}") for c in offered],
        "named": [spoken(f"{c['name']}: {c['description']}") for c in offered],
        "asked": [spoken(intent["text"]) for intent in told["intents"]],
        "unserved": [spoken(text) for text in unserved["texts"]],
        "right": np.pad(right, spare),
        "offered": np.arange(THINGS) < len(offered),
        "left": np.pad([c["id"] not in unserved["without"] for c in offered], spare[1]),
    }


def read_kinds():
    kinds = tomllib.loads((ROOT / "routing/exemplars.toml").read_text())["set"]
    covers = [set(kind.get("covered_by", [])) for kind in kinds]
    overlap = [[a["id"] in covers[j] or b["id"] in covers[i] for j, b in enumerate(kinds)] for i, a in enumerate(kinds)]
    return kinds, np.array(overlap)


class Tokens:
    """Texts as token ids and mask, of one length."""

    def __init__(self):
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(ROOT / "embedder/tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()

    def __call__(self, texts, length):
        ids, mask = np.zeros((len(texts), length), np.int32), np.zeros((len(texts), length), np.float32)
        for row, text in enumerate(texts):
            found = self.tokenizer.encode(text).ids
            found = found if len(found) <= length else found[: length - 1] + [SEPARATOR]
            ids[row, : len(found)], mask[row, : len(found)] = found, 1
        return ids, mask


def tokenised(tokens, sets, kinds):
    for entry in sets:
        spare = [""] * (THINGS - len(entry["described"]))
        told = tokens(entry["described"] + spare + entry["named"] + spare, TOLD_TOKENS)
        entry["told"] = told
        entry["asked"] = tokens(entry["asked"], ASKED_TOKENS)
        entry["unserved"] = tokens(entry["unserved"], ASKED_TOKENS)
    for kind in kinds:
        kind["exemplars"] = tokens(kind["exemplars"], ASKED_TOKENS)
        kind["about"] = tokens(kind["about"], ASKED_TOKENS)


class Batches:
    """What one step sees: some requests of one set with everything it offers, and some kinds."""

    def __init__(self, sets, kinds, overlap, seed):
        self.sets, self.kinds, self.overlap = sets, kinds, overlap
        self.random = np.random.default_rng(seed)

    def steps(self):
        """The sets of one epoch, as often as their requests need, in a new order."""
        order = [entry for entry in self.sets for _ in range(max(1, len(entry["right"]) // SERVED))]
        return [order[place] for place in self.random.permutation(len(order))]

    def dropped(self, mask):
        kept = self.random.random(mask.shape) > DROP_TOKENS
        kept[:, 0] = True
        return mask * kept

    def batch(self, entry):
        random = self.random
        served = np.resize(random.permutation(len(entry["right"]))[:SERVED], SERVED)
        unserved = np.resize(random.permutation(len(entry["unserved"][0])), UNSERVED)
        asked = [np.concatenate([a[served], b[unserved]]) for a, b in zip(entry["asked"], entry["unserved"])]
        asked_mask = self.dropped(asked[1])
        told_mask = self.dropped(entry["told"][1])
        described_share = random.random() * 0.6 + 0.2
        kept = random.random(THINGS) > DROP_THINGS
        right = entry["right"][served]
        reach = np.concatenate([entry["offered"] & (kept | right), np.tile(entry["left"], (UNSERVED, 1))])
        positive = np.zeros((SERVED + UNSERVED, THINGS + 1), bool)
        positive[:SERVED, :THINGS], positive[SERVED:, THINGS] = right, True
        return {
            "asked": (asked[0], asked_mask),
            "told": (entry["told"][0], told_mask),
            "share": np.float32(described_share),
            "reach": reach,
            "positive": positive,
            **self.kinds_batch(),
        }

    def kinds_batch(self):
        """Three exemplars and one sentence about each of some kinds."""
        chosen = self.random.permutation(len(self.kinds))[:KINDS]
        views = [[], [], [], []]
        for kind in (self.kinds[place] for place in chosen):
            exemplars = self.random.permutation(len(kind["exemplars"][0]))[:3]
            about = self.random.integers(len(kind["about"][0]))
            for view, (source, place) in zip(views, [(kind["exemplars"], e) for e in exemplars] + [(kind["about"], about)]):
                view.append((source[0][place], source[1][place]))
        ids, mask = (np.stack([row[part] for view in views for row in view]) for part in (0, 1))
        rivals = ~self.overlap[np.ix_(chosen, chosen)] | np.eye(KINDS, dtype=bool)
        return {"kinds": (ids, mask), "rivals": rivals}


# Learning.


def train(base, sets, kinds, overlap, epochs, seed, save):
    import jax
    import jax.numpy as jnp
    import optax

    mean = np.array(json.loads((ROOT / "embedder/background-mean.json").read_text())["mean"], np.float32)
    weights = {name: jnp.array(value) for name, value in read_model(base).items()}
    frozen = {name: weights[name] for name in FROZEN}
    trained = {name: value for name, value in weights.items() if name.startswith("e") and name not in frozen}

    def unit(vectors):
        return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)

    def normalised(x, weights, name):
        centred = x - x.mean(-1, keepdims=True)
        return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12) * weights[f"{name}.g"] + weights[f"{name}.b"]

    def encode(weights, ids, mask):
        """The graph of the ONNX file, then seen from the middle of the space."""
        texts, length = ids.shape
        x = weights["wemb"][ids] + weights["temb"][0] + weights["pemb"][:length]
        x = normalised(x, weights, "embeddings.LayerNorm")
        away = (1 - mask)[:, None, None, :] * OUT_OF_REACH
        for layer in range(LAYERS):
            name = f"encoder.layer.{layer}"

            def linear(part, x):
                return x @ weights[f"{name}.{part}.w"] + weights[f"{name}.{part}.bias"]

            def heads(part):
                return linear(part, x).reshape(texts, length, HEADS, DIMS // HEADS).transpose(0, 2, 1, 3)

            query, key, value = (heads(f"attention.self.{part}") for part in ("query", "key", "value"))
            attention = jax.nn.softmax(query @ key.transpose(0, 1, 3, 2) / np.sqrt(DIMS // HEADS) + away, -1)
            mixed = (attention @ value).transpose(0, 2, 1, 3).reshape(texts, length, DIMS)
            x = normalised(x + linear("attention.output.dense", mixed), weights, f"{name}.attention.output.LayerNorm")
            inner = jax.nn.gelu(linear("int", x), approximate=False)
            x = normalised(x + linear("out", inner), weights, f"{name}.output.LayerNorm")
        pooled = (x * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        return unit(unit(pooled) - mean)

    def cross_entropy(scores, positive):
        """Minus the log of the share that all right answers have together."""
        right = jax.nn.logsumexp(jnp.where(positive, scores, OUT_OF_REACH), 1)
        return (jax.nn.logsumexp(scores, 1) - right).mean()

    def loss(trained, batch):
        weights = {**frozen, **trained}
        asked, told = encode(weights, *batch["asked"]), encode(weights, *batch["told"])
        told = batch["share"] * told[:THINGS] + (1 - batch["share"]) * told[THINGS:]
        scores = jnp.where(batch["reach"], asked @ told.T / TEMPERATURE, OUT_OF_REACH)
        none = jnp.full((len(scores), 1), NONE / TEMPERATURE)
        refused = cross_entropy(jnp.concatenate([scores, none], 1), batch["positive"])
        ranked = cross_entropy(scores[:SERVED], batch["positive"][:SERVED, :THINGS])
        asked, *views = encode(weights, *batch["kinds"]).reshape(len(KIND_VIEWS) + 1, KINDS, DIMS)
        alike = sum(share * asked @ view.T for share, view in zip(KIND_VIEWS, views)) / KINDS_TEMPERATURE
        kinds = cross_entropy(jnp.where(batch["rivals"], alike, OUT_OF_REACH), jnp.eye(KINDS, dtype=bool))
        parts = {"ranked": ranked, "refused": refused, "kinds": kinds}
        return sum(WEIGHTS[name] * part for name, part in parts.items()), parts

    batches = Batches(sets, kinds, overlap, seed)
    steps = epochs * len(batches.steps())
    rate = optax.warmup_cosine_decay_schedule(0, RATE, int(steps * WARM_UP), steps, RATE * RATE_LAST)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, b2=0.98, weight_decay=0.0))
    state = optimiser.init(trained)

    @jax.jit
    def step(trained, state, batch):
        (_, parts), gradient = jax.value_and_grad(loss, has_aux=True)(trained, batch)
        updates, state = optimiser.update(gradient, state, trained)
        return optax.apply_updates(trained, updates), state, parts

    began, recent = time.monotonic(), []
    for epoch in range(epochs):
        for entry in batches.steps():
            trained, state, parts = step(trained, state, batches.batch(entry))
            recent.append([float(part) for part in parts.values()])
        told = " ".join(f"{name} {value:.3f}" for name, value in zip(parts, np.mean(recent, 0)))
        print(f"epoch {epoch + 1} of {epochs}, {time.monotonic() - began:.0f} s: {told}", flush=True)
        recent.clear()
        if save:
            np.savez(save, **{name: np.array(value) for name, value in trained.items()})
    return {name: np.array(value) for name, value in trained.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", type=Path, help="ONNX file of the model to begin with")
    parser.add_argument("--weights", type=Path, help="write the model from these instead of training")
    parser.add_argument("--save", type=Path, help="where to keep the trained weights, after every epoch")
    parser.add_argument("--out", type=Path, default=MODEL)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without", nargs="*", default=[], help="names of training sets to leave out, to be judged by")
    told = parser.parse_args()
    if told.weights:
        weights = dict(np.load(told.weights))
    else:
        sets, (kinds, overlap) = read_sets(told.without), read_kinds()
        print(f"{len(sets)} sets, {sum(len(entry['asked']) for entry in sets)} requests", flush=True)
        tokenised(Tokens(), sets, kinds)
        weights = train(told.base, sets, kinds, overlap, told.epochs, told.seed, told.save)
    write_model(told.base, weights, told.out)


if __name__ == "__main__":
    main()
