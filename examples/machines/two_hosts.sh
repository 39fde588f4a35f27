#!/bin/sh
# Two hosts by hand: run this on both, with 0 on the first and 1 on the second.
#     sh two_hosts.sh 0 10.0.0.1 train.py
#     sh two_hosts.sh 1 10.0.0.1 train.py
# 10.0.0.1 is the first host's address, as the second one reaches it.
set -eu
index=$1 first=$2
shift 2
exec swarmsgd launch --nodes "${NODES:-1}" --hosts 2 --host-index "$index" \
    --master-addr "$first" --master-port "${PORT:-29500}" "$@"
