#!/bin/sh
# Machines, by hand. On the one with the devices: `two_machines.sh head`; then, on each for rewards:
# `two_machines.sh rewards HEAD_ADDRESS`; then, on the first: `RAY_AUTH_MODE=token assay grpo run.yaml`; at the end,
# on all: `ray stop`. What follows goes to `ray start`. Where a machine has several addresses, name the one the others
# reach: `two_machines.sh head --node-ip-address=10.0.0.1`, and likewise on the others where Ray chose another.
set -eu
port=${PORT:-6379}

# Who reaches the port may run programs there: Ray wants a token. Without this setting it wants one only where an
# earlier run left one in ~/.ray, and the other machines would send none.
export RAY_AUTH_MODE=token

# A machine that falls silent (cable, power) is lost after at most 3 x (1 + 4) s, in place of 5 x (3 + 10) s. The head
# alone reads these. Longer silence is waited out: raise the threshold where a network is known to pause.
export RAY_health_check_period_ms="${RAY_health_check_period_ms:-1000}"
export RAY_health_check_timeout_ms="${RAY_health_check_timeout_ms:-4000}"
export RAY_health_check_failure_threshold="${RAY_health_check_failure_threshold:-3}"

case "${1:-}" in
    head)
        shift
        [ -n "${RAY_AUTH_TOKEN:-}" ] || [ -s "${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}" ] ||
            (umask 077 && ray get-auth-token --generate >/dev/null)
        ray start --head --port="$port" --num-cpus="$(nproc)" --disable-usage-stats "$@"
        echo "for the others: ~/.ray/auth_token of this machine, copied to the same place there (chmod 600)"
        ;;
    rewards)
        head=${2:?the head: HOST}
        shift 2
        if [ -z "${RAY_AUTH_TOKEN:-}" ] && [ ! -s "${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}" ]; then
            echo "no token here: copy ~/.ray/auth_token of the head to the same place on this machine" >&2
            exit 1
        fi
        # one unit of `reward` a core: cluster.reward_resources asks for them, so no engine's node is ever taken
        exec ray start --address="$head:$port" --num-cpus="$(nproc)" \
            --resources="{\"reward\": $(nproc)}" --disable-usage-stats "$@"
        ;;
    *)
        echo "usage: two_machines.sh head | rewards HEAD_ADDRESS, and options of \`ray start\`" >&2
        exit 2
        ;;
esac
