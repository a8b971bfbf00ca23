#!/usr/bin/env bash
# A real SLURM on this machine, for the tests: one controller, two nodes, three cards that are only device files.
#
#     tests/slurm/start.sh <folder>    # configuration, logs and state go there; as root, with slurm-wlm and munge
#                                      # all users of the machine may then look into it, and submit jobs
#     tests/slurm/stop.sh <folder>
#
# /etc/slurm/slurm.conf points to it meanwhile: SLURM_CONF will not do, as the executor clears the SLURM_ variables of
# its jobs. On a machine that has a SLURM already this refuses to start, with exit status 3.
#
# <folder>/tasks.log has one line for the beginning and one for the end of each task: what its process really saw.
set -euo pipefail

[ $# -eq 1 ] || { echo "usage: $0 <folder>" >&2; exit 2; }
[ "$(id -u)" -eq 0 ] || { echo "$0: needs root, for mknod and for daemons that start jobs." >&2; exit 2; }
for program in munged slurmctld slurmd; do
    command -v "$program" > /dev/null || { echo "$0: no $program. apt-get install slurm-wlm munge" >&2; exit 2; }
done
# A SLURM of the tests that was cut off, with the whole machine perhaps, left its link.
left=$(dirname "$(readlink /etc/slurm/slurm.conf || echo .)")
if [[ "$left" = */slurm-* ]] && ! grep -qsx slurmctld "/proc/$(cat "$left/slurmctld.pid" 2> /dev/null)/comm"; then
    rm /etc/slurm/slurm.conf
fi
if [ -e /etc/slurm/slurm.conf ]; then
    echo "$0: this machine has a SLURM already: /etc/slurm/slurm.conf. Stop it with stop.sh if it is one of these." >&2
    exit 3
fi
mkdir -p "$1" /etc/slurm
folder=$(realpath "$1")
host=$(hostname -s)

chmod a+rx "$folder"
mkdir -p "$folder/state" "$folder/n1" "$folder/n2"
# Whole character devices of no driver (major 240 to 254 are for local use): a card is a file to SLURM.
for card in n1/card0 n1/card1 n2/card0; do
    [ -e "$folder/$card" ] || mknod "$folder/$card" c 240 "${card: -1}"
done
printf '%s\n' \
    "NodeName=n1 Name=gpu File=$folder/n1/card[0-1]" \
    "NodeName=n2 Name=gpu File=$folder/n2/card0" > "$folder/gres.conf"

: > "$folder/tasks.log"
chmod a+rw "$folder/tasks.log"
# Runs as the job's user with the environment of the job's own process.
for word in begin end; do
    printf '%s\n' '#!/bin/sh' \
        "echo \"\$(date +%s.%N) $word \$SLURM_JOB_ID \$SLURM_STEP_ID \$SLURMD_NODENAME \${CUDA_VISIBLE_DEVICES:-none} \${HF_HUB_OFFLINE:-online}\" >> $folder/tasks.log" \
        > "$folder/task_$word"
    chmod 755 "$folder/task_$word"
done

cat > "$folder/slurm.conf" << CONF
ClusterName=tests
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmctldPort=16817
AuthType=auth/munge
# A job that is put back into the queue waits as long as credentials hold: two minutes by default. If it comes back to a
# node where its processes still end, SLURM drains the node.
AuthInfo=socket=$folder/munge.socket,cred_expire=20
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/%n.log
# No control groups: they need an init system that a container lacks.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog=$folder/task_begin
TaskEpilog=$folder/task_end
MpiDefault=none
SwitchType=switch/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
# A job over its memory is killed, as control groups would.
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
# The nodes are as large as is said here, whatever the machine has.
SlurmdParameters=config_overrides
SlurmdTimeout=10
# Down is down until the node answers again.
ReturnToService=2
KillWait=30
OverTimeLimit=0
MinJobAge=3600
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=17001 CPUs=4 RealMemory=100000 Gres=gpu:2
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=17002 CPUs=4 RealMemory=100000 Gres=gpu:1
PartitionName=normal Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=n1,n2 MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
CONF

head -c 1024 /dev/urandom > "$folder/munge.key"
chmod 600 "$folder/munge.key"
# --force: munge would rather have its socket below folders that no other user can write, which /tmp is not.
munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/munged.seed" 2> /dev/null
ln -sf "$folder/slurm.conf" /etc/slurm/slurm.conf
slurmctld -f "$folder/slurm.conf"
slurmd -f "$folder/slurm.conf" -N n1
slurmd -f "$folder/slurm.conf" -N n2
for _ in $(seq 60); do
    [ "$(sinfo --noheader --Node --partition=normal --states=idle --format=%N 2> /dev/null | wc -l)" -eq 2 ] && exit 0
    sleep 0.5
done
echo "$0: the nodes did not come up within 30 seconds; see $folder/*.log." >&2
exit 1
