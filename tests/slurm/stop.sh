#!/usr/bin/env bash
# Stop the SLURM that start.sh started in this folder, and every job in it.
set -uo pipefail

[ $# -eq 1 ] || { echo "usage: $0 <folder>" >&2; exit 2; }
folder=$(realpath "$1")
timeout 10 squeue --noheader --format=%i 2> /dev/null | xargs --no-run-if-empty timeout 10 scancel --quiet
for _ in $(seq 40); do
    [ -z "$(timeout 10 squeue --noheader 2> /dev/null)" ] && break
    sleep 0.5
done
for daemon in n1 n2 slurmctld munged; do
    [ -f "$folder/$daemon.pid" ] || continue
    pid=$(cat "$folder/$daemon.pid")
    kill "$pid" 2> /dev/null
    for _ in $(seq 40); do
        kill -0 "$pid" 2> /dev/null || break
        sleep 0.25
    done
    kill -9 "$pid" 2> /dev/null
done
[ "$(readlink /etc/slurm/slurm.conf)" = "$folder/slurm.conf" ] && rm /etc/slurm/slurm.conf
exit 0
