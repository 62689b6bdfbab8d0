#!/usr/bin/env bash
# Runs the README's Flower commands: every line of the block that follows "<!-- flower -->".
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="$PWD/.venv/bin:$PATH"
commands=$(awk '/<!-- flower -->/{found=1} found && /^```$/{exit} found && !/^```|^<!--/{print}' README.md)
test -n "$commands"
bash -euxo pipefail -c "$commands"
