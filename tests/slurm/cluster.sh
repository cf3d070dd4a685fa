#!/usr/bin/env bash
# cluster.sh -- a real Slurm (Debian slurm-wlm + munge) on one machine, on loopback, with
# several virtual nodes (one slurmd each).  Run as root.  No systemd, no cgroups; no database
# unless SLURMLAB_DBD=1, which adds slurmdbd on a private MariaDB so that sacct works.
#
#   cluster.sh up       install if need be, configure, start, wait till every node is idle
#   cluster.sh down     cancel all jobs, stop exactly the daemons that `up` started
#   cluster.sh status   0 when everything is up, 1 otherwise
#                       (settings are read by `up` on a cluster that is down: `down` to change them)
#   cluster.sh env      print "export SLURM_CONF=..." for eval
#
# Settings (environment):
#   SLURMLAB_STATE   state directory (absolute)              [$TMPDIR/slurmlab, or under /var/tmp]
#   SLURMLAB_NODES   number of virtual nodes                 [2]
#   SLURMLAB_CPUS    CPUs each claims (may exceed the real)  [4]
#   SLURMLAB_GPUS    fake GPUs each claims, 0 for none       [2]
#   SLURMLAB_GPU_TYPE  their type, as in --gres=gpu:h200:2   [none]
#   SLURMLAB_FEATURES  node features, for --constraint       [none]
#   SLURMLAB_DBD     1: accounting (sacct); fix it per state directory [0]
#   SLURMLAB_MEM     MB of memory each claims (not enforced) [65536]
#   SLURMLAB_PARTITIONS  names of further partitions like debug [none]
#   SLURMLAB_PORT    first TCP port; PORT..PORT+NODES, and with DBD PORT-1, PORT-2 [16817]
#   SLURMLAB_FIRST_JOB  number of the first job               [1]
set -euo pipefail

STATE=${SLURMLAB_STATE:-${TMPDIR:-/var/tmp}/slurmlab}
NODES=${SLURMLAB_NODES:-2}
CPUS=${SLURMLAB_CPUS:-4}
GPUS=${SLURMLAB_GPUS:-2}
GPU_TYPE=${SLURMLAB_GPU_TYPE:-}
FEATURES=${SLURMLAB_FEATURES:-}
DBD=${SLURMLAB_DBD:-0}
MEM=${SLURMLAB_MEM:-65536}
PORT=${SLURMLAB_PORT:-16817}
PARTITIONS=${SLURMLAB_PARTITIONS:-}
FIRST_JOB=${SLURMLAB_FIRST_JOB:-1}
MARK="# slurmlab:$STATE:"
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH
export SLURM_CONF=$STATE/etc/slurm.conf

say() { echo "cluster.sh: $*" >&2; }
die() { say "$*"; exit 1; }
[[ $STATE == /* ]] || die "SLURMLAB_STATE must be an absolute path"

# alive NAME: prints the pid in $STATE/run/NAME.pid if it still is the daemon we started
# (pid files outlive a killed VM, and pids are reused: compare the command line).
alive() {
    local pid
    pid=$(cat "$STATE/run/$1.pid" 2>/dev/null) || return 1
    [[ -n $pid && -r /proc/$pid/cmdline ]] || return 1
    tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF -- "$STATE/" ||
        tr '\0' '\n' <"/proc/$pid/environ" | grep -qxF -- "SLURM_CONF=$SLURM_CONF" || return 1
    echo "$pid"
}

install_packages() {
    local pkgs=(slurm-wlm munge) cmds=(slurmctld slurmd sbatch munged)
    if [[ $DBD == 1 ]]; then pkgs+=(slurmdbd mariadb-server-core); cmds+=(slurmdbd mariadbd); fi
    command -v "${cmds[@]}" | wc -l | grep -qx "${#cmds[@]}" && return 0
    say "installing ${pkgs[*]}"
    local policy=/usr/sbin/policy-rc.d made=
    if [[ ! -e $policy ]]; then         # keep the packages from starting their own daemons
        printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod 755 "$policy"; made=1
    fi
    local rc=0
    { apt-get -q update &&
      DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120 \
          install --no-install-recommends "${pkgs[@]}"
    } >"$STATE/log/apt.log" 2>&1 || rc=$?
    [[ -z $made ]] || rm -f "$policy"
    [[ $rc == 0 ]] || { tail -20 "$STATE/log/apt.log" >&2; die "apt-get failed ($rc)"; }
}

write_config() {
    local host gres="" nodegres="" i acct="AccountingStorageType=accounting_storage/none"
    host=$(hostname -s)
    if [[ $DBD == 1 ]]; then
        acct="AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((PORT - 1))
AccountingStoragePass=$STATE/run/munge.socket
AccountingStorageTRES=gres/gpu"
        (umask 077; cat >"$STATE/etc/slurmdbd.conf") <<CONF
AuthType=auth/munge
AuthInfo=socket=$STATE/run/munge.socket
SlurmUser=root
DbdHost=$host
DbdAddr=127.0.0.1
DbdPort=$((PORT - 1))
PidFile=$STATE/run/slurmdbd.pid
LogFile=$STATE/log/slurmdbd.log
DebugLevel=info
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$((PORT - 2))
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
CONF
    fi
    if ((GPUS > 0)); then
        gres="GresTypes=gpu"; nodegres=" Gres=gpu:${GPU_TYPE:+$GPU_TYPE:}$GPUS"
        # slurmd insists on device files; give it nodes of our own with /dev/null's numbers,
        # so that it sets CUDA_VISIBLE_DEVICES.  Where mknod is forbidden: a bare count.
        local what="File=$STATE/dev/fakegpu[0-$((GPUS - 1))]"
        ((GPUS > 1)) || what="File=$STATE/dev/fakegpu0"
        for ((i = 0; i < GPUS; i++)); do
            [[ -c $STATE/dev/fakegpu$i ]] || mknod -m 666 "$STATE/dev/fakegpu$i" c 1 3 2>/dev/null || what="Count=$GPUS"
        done
        echo "NodeName=node[1-$NODES] Name=gpu ${GPU_TYPE:+Type=$GPU_TYPE }$what" >"$STATE/etc/gres.conf"
    else
        : >"$STATE/etc/gres.conf"
    fi
    [[ -z $FEATURES ]] || nodegres+=" Feature=$FEATURES"
    cat >"$SLURM_CONF" <<CONF
ClusterName=slurmlab
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# cred_expire is also how long a requeued job waits before it may start again (default 120 s)
AuthInfo=socket=$STATE/run/munge.socket,cred_expire=5
FirstJobId=$FIRST_JOB
SlurmctldPort=$PORT
SlurmctldPidFile=$STATE/run/slurmctld.pid
SlurmctldLogFile=$STATE/log/slurmctld.log
SlurmctldDebug=info
StateSaveLocation=$STATE/ctld
SlurmdPidFile=$STATE/run/%n.pid
SlurmdLogFile=$STATE/log/%n.log
SlurmdDebug=info
SlurmdSpoolDir=$STATE/spool/%n
SlurmdParameters=config_overrides
ReturnToService=2
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
$acct
JobCompType=jobcomp/filetxt
JobCompLoc=$STATE/log/jobcomp.txt
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=5,batch_sched_delay=0
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
KillWait=5
SlurmdTimeout=10
MinJobAge=3600
InactiveLimit=0
MailProg=/bin/true
$gres
NodeName=node[1-$NODES] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[$((PORT + 1))-$((PORT + NODES))] CPUs=$CPUS RealMemory=$MEM$nodegres State=UNKNOWN
PartitionName=debug  Nodes=ALL Default=YES PriorityTier=1   PreemptMode=REQUEUE MaxTime=INFINITE State=UP
PartitionName=grace  Nodes=ALL Default=NO  PriorityTier=1   PreemptMode=REQUEUE GraceTime=30 MaxTime=INFINITE State=UP
PartitionName=urgent Nodes=ALL Default=NO  PriorityTier=100 PreemptMode=OFF     MaxTime=INFINITE State=UP
$(for name in $PARTITIONS; do echo "PartitionName=$name Nodes=ALL Default=NO PriorityTier=1 MaxTime=INFINITE State=UP"; done)
CONF
    # node names must resolve: MASTER_ADDR comes from \`scontrol show hostnames\`
    local line="127.0.0.1$(printf ' node%d' $(seq "$NODES")) $MARK"
    grep -qxF -- "$line" /etc/hosts || { hosts_clean; echo "$line" >>/etc/hosts; }
}

# rewritten in place: /etc/hosts may be a bind mount, which sed -i cannot replace
hosts_clean() {
    local rest
    grep -qF -- "$MARK" /etc/hosts || return 0
    rest=$(grep -vF -- "$MARK" /etc/hosts || true); printf '%s\n' "$rest" >/etc/hosts
}

start_dbd() {
    local i
    if ! alive mariadbd >/dev/null; then
        if [[ ! -d $STATE/mysql/mysql ]]; then
            # what mariadb-install-db does (its helper my_print_defaults is in another, larger package)
            mkdir -p "$STATE/mysql"
            (cd /usr/share/mysql
             printf '%s;\n' "CREATE DATABASE mysql" "USE mysql" "SET @auth_root_socket=NULL" "SET @skip_auth_anonymous=1"
             cat mysql_system_tables.sql mysql_performance_tables.sql mysql_system_tables_data.sql) |
                mariadbd --no-defaults --user=root --bootstrap --datadir="$STATE/mysql" --lc-messages-dir=/usr/share/mysql \
                    >"$STATE/log/mariadb-install.log" 2>&1 ||
                { tail -5 "$STATE/log/mariadb-install.log" >&2; rm -rf "$STATE/mysql"; die "could not make the database"; }
        fi
        echo "CREATE DATABASE IF NOT EXISTS slurm_acct_db; CREATE USER IF NOT EXISTS slurm@'127.0.0.1' IDENTIFIED BY 'slurm', slurm@localhost IDENTIFIED BY 'slurm'; GRANT ALL ON slurm_acct_db.* TO slurm@'127.0.0.1', slurm@localhost;" |
            sed 's/; /;\n/g' >"$STATE/etc/mariadb-init.sql"
        setsid mariadbd --no-defaults --user=root --datadir="$STATE/mysql" --socket="$STATE/run/mysql.sock" \
            --bind-address=127.0.0.1 --port=$((PORT - 2)) --pid-file="$STATE/run/mariadbd.pid" \
            --innodb-lock-wait-timeout=900 --innodb-buffer-pool-size=256M --init-file="$STATE/etc/mariadb-init.sql" \
            </dev/null >"$STATE/log/mariadbd.log" 2>&1 &
        for ((i = 0; i < 120; i++)); do
            if alive mariadbd >/dev/null && (exec 3<>"/dev/tcp/127.0.0.1/$((PORT - 2))") 2>/dev/null; then break; fi
            sleep 0.25
        done
        alive mariadbd >/dev/null || { tail -5 "$STATE/log/mariadbd.log" >&2; die "mariadbd did not start"; }
    fi
    if ! alive slurmdbd >/dev/null; then
        # its command line carries no path of ours: keep the pid, and know it by SLURM_CONF
        slurmdbd </dev/null >"$STATE/log/slurmdbd.out" 2>&1 || { cat "$STATE/log/slurmdbd.out" >&2; die "slurmdbd did not start"; }
    fi
    for ((i = 0; i < 30; i++)); do
        timeout 5 sacctmgr -n show cluster >/dev/null 2>&1 && break
        sleep 0.5
    done
    [[ -n $(sacctmgr -n show cluster slurmlab format=cluster 2>/dev/null) ]] ||
        sacctmgr -i add cluster slurmlab >/dev/null || die "sacctmgr could not add the cluster"
}

up() {
    [[ $(id -u) == 0 ]] || die "must run as root"
    umask 022
    mkdir -p "$STATE"/{etc,run,log,ctld,spool,dev,munge}
    install_packages
    if status >/dev/null 2>&1; then say "already up"; status; return 0; fi
    local n i
    if ! alive slurmctld >/dev/null; then write_config; fi
    if ! alive munged >/dev/null; then
        chmod 700 "$STATE/munge"
        if [[ ! -s $STATE/munge/munge.key ]]; then
            (umask 077; head -c 128 /dev/urandom >"$STATE/munge/munge.key")
        fi
        munged --force --key-file="$STATE/munge/munge.key" --socket="$STATE/run/munge.socket" \
            --pid-file="$STATE/run/munged.pid" --seed-file="$STATE/munge/munged.seed" \
            --log-file="$STATE/log/munged.log" </dev/null >/dev/null 2>&1 ||
            { tail -5 "$STATE/log/munged.log" >&2; die "munged did not start"; }
    fi
    [[ $DBD != 1 ]] || start_dbd
    if ! alive slurmctld >/dev/null; then
        slurmctld -f "$SLURM_CONF" -L "$STATE/log/slurmctld.log" </dev/null >"$STATE/log/slurmctld.out" 2>&1 ||
            { cat "$STATE/log/slurmctld.out" >&2; die "slurmctld did not start"; }
    fi
    for ((n = 1; n <= NODES; n++)); do
        alive "node$n" >/dev/null && continue
        mkdir -p "$STATE/spool/node$n"
        slurmd -N "node$n" -f "$SLURM_CONF" </dev/null >"$STATE/log/node$n.out" 2>&1 ||
            { cat "$STATE/log/node$n.out" >&2; die "slurmd node$n did not start"; }
    done
    for ((i = 0; i < 120; i++)); do
        status >/dev/null 2>&1 && { status; return 0; }
        sleep 0.5
    done
    status || true
    tail -n 20 "$STATE"/log/slurmctld.log "$STATE"/log/node*.log >&2
    die "not up after 60 s"
}

status() {
    local bad=0 d pid up
    local daemons="munged slurmctld"
    [[ $DBD != 1 ]] || daemons="munged mariadbd slurmdbd slurmctld"
    for d in $daemons $(printf 'node%d ' $(seq "$NODES")); do
        if pid=$(alive "$d"); then echo "$d: running (pid $pid)"; else echo "$d: not running"; bad=1; fi
    done
    if [[ $bad == 0 ]]; then
        sinfo -N -h -o '%N %P %T %c cpus %G' || bad=1
        up=$(sinfo -h -N -p debug -t idle,alloc,mix,comp -o '%N %T' 2>/dev/null | grep -vc '[*]' || true)
        [[ $up == "$NODES" ]] || bad=1
    fi
    return $bad
}

# slurmstepd rewrites its command line; know ours by the log or spool file it holds open
stepds() {
    local p
    for p in $(pgrep -x slurmstepd || true); do
        if ls -l "/proc/$p/fd" 2>/dev/null | grep -qF -- "-> $STATE/"; then echo "$p"; fi
    done
}

stop() {    # stop NAME: TERM, then KILL after 20 s
    local pid i
    pid=$(alive "$1") || { rm -f "$STATE/run/$1.pid"; return 0; }
    kill -TERM "$pid" 2>/dev/null || true
    for ((i = 0; i < 200; i++)); do [[ -d /proc/$pid ]] || break; sleep 0.1; done
    if [[ -d /proc/$pid ]]; then kill -KILL "$pid" 2>/dev/null || true; fi
    rm -f "$STATE/run/$1.pid"
}

down() {
    local i p d
    if alive slurmctld >/dev/null && alive munged >/dev/null; then
        # by id: `scancel` wants a filter
        for p in $(timeout 10 squeue -h -o %A 2>/dev/null | sort -u); do timeout 10 scancel "$p" 2>/dev/null || true; done
        for ((i = 0; i < 40; i++)); do
            [[ -n $(timeout 10 squeue -h 2>/dev/null) ]] || break
            sleep 0.5
        done
    fi
    # told all at once, since each takes two seconds to end, then waited for
    for p in "$STATE"/run/{node*,slurmctld}.pid; do
        if p=$(alive "$(basename "$p" .pid)"); then kill -TERM "$p" 2>/dev/null || true; fi
    done
    for p in "$STATE"/run/node*.pid; do
        [[ -e $p ]] || continue
        d=$(basename "$p" .pid); stop "$d"
    done
    for p in $(stepds); do kill -TERM "$p" 2>/dev/null || true; done
    stop slurmctld
    stop slurmdbd
    stop mariadbd
    stop munged
    [[ ! -w /etc/hosts ]] || hosts_clean
    say "down"
}

case ${1:-} in
    up | down)      # one at a time; flock -o keeps the lock from the daemons
        if [[ -z ${SLURMLAB_LOCKED:-} ]]; then
            mkdir -p "$STATE"
            SLURMLAB_LOCKED=1 exec flock -o -w 300 "$STATE/lock" bash "$0" "$1"
        fi
        unset SLURMLAB_LOCKED
        "$1" ;;
    status) status ;;
    env) echo "export SLURM_CONF=$SLURM_CONF" ;;
    *) sed -n '2,25p' "$0"; exit 2 ;;
esac
