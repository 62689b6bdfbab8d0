#!/usr/bin/env bash
# Runs the README's Flower command as it stands there, then the same seeded rounds in one process:
# both must release the same adapter. Ends the SuperLink that `flwr run` leaves behind.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="$PWD/.venv/bin:$PATH"
export FLWR_HOME="$(mktemp -d)"
finish() {
  for pid in $(pgrep -f flower-superlink || true); do
    ! tr '\0' '\n' <"/proc/$pid/environ" | grep -qx "FLWR_HOME=$FLWR_HOME" || kill "$pid"
  done
  rm -rf "$FLWR_HOME"
}
trap finish EXIT

commands=$(awk '/<!-- flower -->/{on=1; next} on && /^```$/{exit} on && !/^```/{print}' README.md)
test -n "$commands"
rm -rf runs/flower runs/flower-local
bash -euxo pipefail -c "$commands"
feddp ledger verify runs/flower
feddp simulate --set run.rounds=2 --set run.seed=7 --set run.name=flower-local
cmp runs/flower/adapter/adapter_model.safetensors runs/flower-local/adapter/adapter_model.safetensors
echo "The same bytes under Flower and in one process."
