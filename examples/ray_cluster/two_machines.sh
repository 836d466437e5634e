#!/bin/sh
# Two machines, by hand. On the one with the devices: `two_machines.sh head`; then, on the one for rewards:
# `two_machines.sh rewards HEAD_ADDRESS`; then, on the first: `assay grpo run.yaml`; at the end, on both: `ray stop`.
set -eu
port=6379
case "${1:-}" in
    head)
        exec ray start --head --port="$port" --num-cpus="$(nproc)" --disable-usage-stats
        ;;
    rewards)
        # one unit of `reward` a core: cluster.reward_resources asks for them, so no engine's node is ever taken
        exec ray start --address="${2:?the head: HOST}:$port" --num-cpus="$(nproc)" \
            --resources="{\"reward\": $(nproc)}" --disable-usage-stats
        ;;
    *)
        echo "usage: two_machines.sh head | rewards HEAD_ADDRESS" >&2
        exit 2
        ;;
esac
