#!/usr/bin/env bash
# Runs a command with a Slurm on this machine, of two nodes with two processors and one: ci/slurm.sh [--accounting]
# COMMAND...
#
# slurm-wlm and munge are installed from Debian where they are missing. --accounting adds slurmdbd with a MariaDB of
# its own. All of it lives in a temporary folder and ends with the command. Where it cannot be had, this says why and
# runs the command without: the tests that need Slurm are skipped.
set -euo pipefail
accounting=
if [ "$1" = --accounting ]; then
  accounting=yes
  shift
fi

without() {
  echo "ci/slurm.sh: no Slurm: $1; the tests that need one are skipped" >&2
  exec "${command[@]}"
}
command=("$@")
packages=(slurm-wlm munge)
programs=(slurmctld slurmd sbatch munged)
if [ -n "$accounting" ]; then
  packages+=(slurmdbd mariadb-server)
  programs+=(slurmdbd mariadbd mariadb-install-db)
fi
export PATH=$PATH:/usr/sbin:/sbin

[ "$(id -u)" = 0 ] || without "starting it needs root"
if [ "$(command -v "${programs[@]}" | wc -l)" -lt ${#programs[@]} ]; then
  command -v apt-get >/dev/null || without "it is not installed, and there is no apt-get to install it"
  # Nothing that is installed is to start by itself.
  policy=/usr/sbin/policy-rc.d
  made=
  [ -e $policy ] || { made=yes; printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; }
  log=$(mktemp)
  (
    export DEBIAN_FRONTEND=noninteractive
    options=(-qq -o DPkg::Lock::Timeout=120 -o Acquire::Retries=2)
    install=(apt-get "${options[@]}" install -y --no-install-recommends "${packages[@]}")
    "${install[@]}" || { apt-get "${options[@]}" update && "${install[@]}"; }
  ) >"$log" 2>&1 || { tail -5 "$log" >&2; failed=yes; }
  [ -z "$made" ] || rm -f $policy
  rm -f "$log"
  [ -z "${failed:-}" ] || without "${packages[*]} could not be installed"
fi

work=$(mktemp -d /tmp/lthbench-slurm.XXXXXX)
chmod 755 "$work"
pids=()
stop() {
  set +e
  # Jobs first, so that no process of theirs is left behind.
  [ ${#pids[@]} -lt 2 ] || { scancel --full --user root; sleep 0.5; } >/dev/null 2>&1
  for pid in $(cat "$work"/slurmd.*.pid 2>/dev/null) "${pids[@]}"; do kill "$pid"; done 2>/dev/null
  for pid in "${pids[@]}"; do wait "$pid"; done 2>/dev/null
  rm -rf "$work"
}
trap stop EXIT

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
until_true() {  # SECONDS COMMAND...
  local deadline=$((SECONDS + $1))
  shift
  while [ $SECONDS -lt $deadline ]; do
    "$@" >/dev/null 2>&1 && return
    sleep 0.1
  done
  echo "ci/slurm.sh: not in time: $*" >&2
  tail -n 20 "$work"/*.log >&2
  exit 1
}

# Authentication: a key and a socket of our own.
mkdir "$work/munge"
dd if=/dev/urandom of="$work/munge/key" bs=1024 count=1 status=none
chmod 400 "$work/munge/key"
chown -R munge: "$work/munge"
setpriv --reuid munge --regid munge --clear-groups munged --foreground --key-file "$work/munge/key" \
  --socket "$work/munge/socket" --pid-file "$work/munge/pid" --log-file "$work/munge/log" \
  --seed-file "$work/munge/seed" >"$work/munge.log" 2>&1 &
pids+=($!)
until_true 20 test -S "$work/munge/socket"

host=$(hostname -s)
mkdir "$work/state"
# Names that every machine can resolve, as the processes of a job meet at the first of its nodes.
nodes=(127.0.0.1 127.0.0.2)
cat >"$work/slurm.conf" <<CONF
ClusterName=lthbench
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort=$(free_port)
AuthType=auth/munge
AuthInfo=socket=$work/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool.%n
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.%n.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
JobRequeue=1
KillWait=3
MinJobAge=300
SlurmdTimeout=10
ReturnToService=2
SlurmdParameters=config_overrides
PriorityType=priority/basic
NodeName=${nodes[0]} NodeHostname=$host NodeAddr=127.0.0.1 Port=$(free_port) CPUs=2 RealMemory=4096 State=UNKNOWN
NodeName=${nodes[1]} NodeHostname=$host NodeAddr=127.0.0.1 Port=$(free_port) CPUs=1 RealMemory=4096 State=UNKNOWN
PartitionName=batch Nodes=${nodes[0]},${nodes[1]} Default=YES MaxTime=INFINITE State=UP
CONF
if [ -n "$accounting" ]; then
  mkdir "$work/mariadb"
  chown mysql: "$work/mariadb"
  mariadb-install-db --no-defaults --user=mysql --datadir="$work/mariadb" >"$work/mariadb.log" 2>&1
  mariadbd --no-defaults --user=mysql --datadir="$work/mariadb" --socket="$work/mariadb/socket" \
    --pid-file="$work/mariadb/pid" --skip-networking --innodb-lock-wait-timeout=900 >>"$work/mariadb.log" 2>&1 &
  pids+=($!)
  until_true 40 mariadb-admin --no-defaults --socket="$work/mariadb/socket" ping
  mariadb --no-defaults --socket="$work/mariadb/socket" -e 'create database slurm_acct_db'
  port=$(free_port)
  cat >"$work/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$work/munge/socket,cred_expire=5
DbdHost=$host
DbdAddr=127.0.0.1
DbdPort=$port
SlurmUser=root
LogFile=$work/slurmdbd.log
PidFile=$work/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
CONF
  chmod 600 "$work/slurmdbd.conf"
  cat >>"$work/slurm.conf" <<CONF
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$port
AccountingStoragePass=$work/munge/socket
JobAcctGatherType=jobacct_gather/linux
CONF
  MYSQL_UNIX_PORT=$work/mariadb/socket SLURM_CONF="$work/slurm.conf" slurmdbd -D >>"$work/slurmdbd.log" 2>&1 &
  pids+=($!)
  export SLURM_CONF=$work/slurm.conf
  until_true 40 sacctmgr -n list cluster
  sacctmgr -i add cluster lthbench >/dev/null || true
else
  printf 'AccountingStorageType=accounting_storage/none\nJobAcctGatherType=jobacct_gather/none\n' >>"$work/slurm.conf"
fi
export SLURM_CONF=$work/slurm.conf
slurmctld -D >>"$work/slurmctld.log" 2>&1 &
pids+=($!)
for node in "${nodes[@]}"; do
  slurmd -D -N "$node" >>"$work/slurmd.$node.log" 2>&1 &
  pids+=($!)
done
until_true 40 bash -c 'test "$(sinfo --noheader --Node --format %t | grep -cx idle)" = 2'
"${command[@]}"
