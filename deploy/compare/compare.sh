#!/usr/bin/env bash
# Measures Atmosphere beside vllm-router and LiteLLM, before the same mock engine. Arguments go to `atmo bench proxy`.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=deploy/compare
target=${CARGO_TARGET_DIR:-target}
atmo=$target/release/atmo
work=$target/compare
mkdir -p "$work"

started=()
finish() {
    for process in "${started[@]}"; do kill "$process" 2>/dev/null || true; done
}
trap finish EXIT

environment() {
    local name=$1
    if [ ! -e "$work/$name/ready" ] || [ "$here/requirements-$name.txt" -nt "$work/$name/ready" ]; then
        rm -rf "${work:?}/$name"
        python3 -m venv "$work/$name"
        "$work/$name/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --requirement "$here/requirements-$name.txt"
        touch "$work/$name/ready"
    fi
}

wait_for() {
    for _ in $(seq 300); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return 0; fi
        sleep 0.2
    done
    echo "nothing listens on port $1; see $2" >&2
    return 1
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

environment vllm-router
environment litellm

"$atmo" bench mock >"$work/mock" &
started+=($!)
until [ -s "$work/mock" ]; do sleep 0.1; done
mock=$(head -n 1 "$work/mock")

router=$(free_port)
"$work/vllm-router/bin/vllm-router" --worker-urls "http://$mock" --host 127.0.0.1 --port "$router" --policy round_robin \
    >"$work/vllm-router.log" 2>&1 &
started+=($!)
litellm=$(free_port)
cat >"$work/litellm.yaml" <<YAML
model_list:
  - model_name: mock
    litellm_params: { model: openai/mock, api_base: "http://$mock/v1", api_key: none }
YAML
"$work/litellm/bin/litellm" --config "$work/litellm.yaml" --host 127.0.0.1 --port "$litellm" --num_workers 1 \
    >"$work/litellm.log" 2>&1 &
started+=($!)
wait_for "$router" "$work/vllm-router.log"
wait_for "$litellm" "$work/litellm.log"

"$atmo" bench proxy --mock "$mock" --beside "vllm-router=127.0.0.1:$router" --beside "litellm=127.0.0.1:$litellm" "$@"
