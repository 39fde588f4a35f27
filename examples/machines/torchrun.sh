#!/bin/sh
# torchrun on several hosts: the same line on each, with its own index.
#     sh torchrun.sh 0 4 10.0.0.1 train.py
# Where one of its nodes fails torchrun ends all of them and starts them again; `swarmsgd launch`
# does not. The nodes meet at torchrun's own store.
set -eu
index=$1 hosts=$2 first=$3
shift 3
exec torchrun --nnodes "$hosts" --nproc-per-node "${NODES:-1}" --node-rank "$index" \
    --master-addr "$first" --master-port "${PORT:-29500}" --max-restarts 2 "$@"
