#!/bin/sh
# run.sh OUT SCENE…: plays scenes on a machine with SGLang and a GPU, each bounded in time, and ends with 0 if all held.
#
# Beside this script, or in BIN: pilotlight and gpu, both built with CGO_ENABLED=0. PYTHON has SGLang (PYTHONPATH is passed on), MODEL is
# the folder of a small chat model. ENGINE_ARGS go to every engine, LARGE is a folder for a model of 8B's shape.
set -eu
out=${1:?usage: run.sh OUT SCENE…}
shift
here=$(cd "$(dirname "$0")" && pwd)
bin=${BIN:-$here}
: "${PYTHON:=python3}" "${MODEL:?MODEL is the folder of a small chat model}" "${ENGINE_ARGS:=--attention-backend triton --sampling-backend pytorch}"
status=0
for scene in "$@"; do
	"$bin/gpu" -scene "$scene" -pilotlight "$bin/pilotlight" -sglang-python "$PYTHON" -model "$MODEL" -large "${LARGE:-}" -engine-args "$ENGINE_ARGS" -out "$out" || status=1
done
exit $status
