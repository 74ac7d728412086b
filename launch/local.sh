#!/usr/bin/env bash
# The main job on this machine, set-up included: GIT learns to describe pictures.
#
#   bash launch/local.sh                                    the embedded scenes
#   bash launch/local.sh --config=configs/folder.py --config.data.path=DIR
#   bash launch/local.sh --config.model.encoder.depth=6 --workdir=runs/deeper
#
# Arguments go to `python -m git_jax.train`. Without --config the run is
# configs/scenes.py:tiny; without --workdir it lies in runs/, named after its config.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

# What is given empty, as by an unset variable, is left for the command to refuse.
config="" named="" placed="" previous=""
for argument in "$@"; do
    case $previous in
    --config | -config) config=$argument named=yes ;;
    --workdir | -workdir) placed=yes ;;
    esac
    case $argument in
    --config=* | -config=*) config=${argument#*=} named=yes ;;
    --workdir=* | -workdir=*) placed=yes ;;
    esac
    previous=$argument
done
if [[ -z $named ]]; then
    config=$root/configs/scenes.py:tiny
    set -- "--config=$config" "$@"
fi
if [[ -z $placed ]]; then
    name=$(basename "${config%%:*}" .py)
    set -- "--workdir=$root/runs/$name" "$@"
fi

install_run
exec "$venv/bin/python" -m git_jax.train "$@"
