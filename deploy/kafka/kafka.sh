#!/bin/sh
# Apache Kafka on this machine, without containers: for tests and for trying out. Loopback only.
# The jars come by Maven, once, into build/kafka; data, settings, logs and pids live in DIR.
set -eu

usage() {
    cat <<EOF
usage: kafka.sh COMMAND
  start DIR [--brokers N] [--port P] [--secure]   start what is down in DIR, which keeps its data;
                                                  prints host:port,... when all brokers answer
  run DIR [the same]                              the same in the foreground, until Ctrl-C
  stop DIR                                        stop every broker
  start-one DIR N / stop-one DIR N / kill-one DIR N   one broker, from 1; kill is SIGKILL
  status DIR                                      one line a broker: number, up or down, pid, address
  fetch                                           the jars, and no more
--brokers, --port and --secure are settled when DIR is made. Broker n listens on P + n - 1 (default:
free ports); --secure adds SASL over TLS on P + 20 + n - 1 and mutual TLS on P + 30 + n - 1, with an
authority, certificates and the password of the user "fusewatch" in DIR/secrets.
EOF
}

fail() {
    echo "kafka.sh: $*" >&2
    exit 1
}

here=$(cd "$(dirname "$0")" && pwd)
version=$(sed -n 's|^  <version>\(.*\)</version>|\1|p' "$here/pom.xml")
cache=$here/../../build/kafka/$version

fetch() {
    [ -d "$cache/libs" ] && return
    for each in java mvn; do
        command -v "$each" >/dev/null || fail "no $each: install default-jre-headless and maven (deploy/apt.txt)"
    done
    mkdir -p "$cache"
    # A folder of its own, renamed when it is whole: two tests may start at once, or one be interrupted
    new=$(mktemp -d "$cache/libs.XXXXXX")
    mvn -B -q -Dstyle.color=never -f "$here/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
        -DoutputDirectory="$new" >&2 || { rm -rf "$new"; fail "Maven could not fetch Apache Kafka $version"; }
    chmod 755 "$new"
    mv -T "$new" "$cache/libs" 2>/dev/null || rm -rf "$new"
}

# Below the range that the kernel gives to outgoing connections (32768 and up): the port of a killed
# broker must still be free when it starts again.
free_ports() {
    python3 - <<'EOF'
import random, socket
while True:
    base = random.randrange(20000, 32700)
    try:
        for port in (base + kind + n for kind in (0, 10, 20, 30) for n in range(9)):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
    except OSError:
        continue
    print(base)
    break
EOF
}

# --- DIR: settings, secrets, one folder a broker

settle() {
    brokers=1 port='' secure=''
    while [ $# -gt 0 ]; do
        case $1 in
        --brokers) brokers=$2; shift ;;
        --port) port=$2; shift ;;
        --secure) secure=yes ;;
        *) usage >&2; exit 2 ;;
        esac
        shift
    done
    case $brokers in [1-9]) ;; *) fail "--brokers: from 1 to 9" ;; esac
    [ "${port:-0}" != 0 ] || port=$(free_ports)
    mkdir -p "$dir"
    [ -z "$secure" ] || certificates
    # base64 of 16 bytes, as Kafka writes its own; one that began with - would be taken for an option
    cluster=F$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | cut -c 2-22)
    printf 'brokers=%s\nport=%s\nsecure=%s\ncluster=%s\n' "$brokers" "$port" "$secure" "$cluster" >"$dir/settings.new"
    mv "$dir/settings.new" "$dir/settings"
}

certificates() (
    umask 077
    mkdir -p "$dir/secrets"
    cd "$dir/secrets"
    key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
    openssl req -x509 $key -days 30 -subj /CN=fusewatch-test-ca -keyout ca.key -out ca.pem
    sign() { # NAME EXTENSION
        openssl req $key -subj "/CN=$1" -keyout "$1.key" -out "$1.csr"
        echo "$2" >"$1.ext"
        openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile "$1.ext" -out "$1.crt"
        rm "$1.csr" "$1.ext"
    }
    sign broker 'subjectAltName=IP:127.0.0.1,DNS:localhost'
    sign client 'extendedKeyUsage=clientAuth'
    cat broker.key broker.crt >broker.pem
    openssl rand -hex 16 >password
) 2>"$dir/openssl.log" || fail "no certificates: $(tail -3 "$dir/openssl.log")"

load() {
    [ -f "$dir/settings" ] || fail "no Kafka in $dir: start it first"
    . "$dir/settings"
}

every() { seq 1 "$brokers"; }

at() { echo $((port + $1 + $2 - 1)); } # KIND N: 0 clients, 10 controllers, 20 SASL over TLS, 30 mutual TLS

addresses() { # KIND
    for i in $(every); do echo "127.0.0.1:$(at "$1" "$i")"; done | paste -sd, -
}

configure() { # N
    mkdir -p "$dir/$1"
    copies=$((brokers < 3 ? brokers : 3))
    insync=$((copies < 3 ? 1 : 2))
    voters=$(for i in $(every); do echo "$i@127.0.0.1:$(at 10 "$i")"; done | paste -sd, -)
    listeners=PLAINTEXT://127.0.0.1:$(at 0 "$1")
    [ -z "$secure" ] || listeners=$listeners,SASL://127.0.0.1:$(at 20 "$1"),MTLS://127.0.0.1:$(at 30 "$1")
    (
        umask 077
        cat >"$dir/$1/server.properties" <<EOF
process.roles=broker,controller
node.id=$1
controller.quorum.voters=$voters
controller.listener.names=CONTROLLER
listeners=$listeners,CONTROLLER://127.0.0.1:$(at 10 "$1")
advertised.listeners=$listeners
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_SSL,MTLS:SSL
inter.broker.listener.name=PLAINTEXT
log.dirs=$dir/$1/data
auto.create.topics.enable=false
default.replication.factor=$copies
min.insync.replicas=$insync
offsets.topic.replication.factor=$copies
offsets.topic.num.partitions=5
transaction.state.log.replication.factor=$copies
transaction.state.log.min.isr=$insync
transaction.state.log.num.partitions=5
share.coordinator.state.topic.replication.factor=$copies
share.coordinator.state.topic.min.isr=$insync
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
# a killed broker comes back only when its last session is over
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=500
# 128 MB of heap by default
log.cleaner.dedupe.buffer.size=8388608
num.network.threads=2
num.io.threads=4
EOF
        [ -z "$secure" ] || cat >>"$dir/$1/server.properties" <<EOF
ssl.keystore.type=PEM
ssl.keystore.location=$dir/secrets/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location=$dir/secrets/ca.pem
listener.name.mtls.ssl.client.auth=required
listener.name.sasl.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_fusewatch="$(cat "$dir/secrets/password")";
listener.name.sasl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
EOF
    )
}

java_() { # replaces the shell, so call it in one of its own; little memory, a fast start: C1 alone
    exec java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.net.preferIPv4Stack=true \
        -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -Dorg.slf4j.simpleLogger.showDateTime=true \
        -Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS \
        -Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info \
        -Dorg.slf4j.simpleLogger.log.org.apache.kafka.coordinator.group=info \
        -Dlog4j2.level=off -cp "$cache/libs/*" "$@"
}

format() { # N
    n=$1
    set -- --config "$dir/$n/server.properties" --cluster-id "$cluster"
    if [ -n "$secure" ]; then
        user="[name=fusewatch,password=$(cat "$dir/secrets/password")]"
        set -- "$@" --add-scram "SCRAM-SHA-256=$user" --add-scram "SCRAM-SHA-512=$user"
    fi
    (java_ -Xmx128m kafka.tools.StorageTool format "$@") >"$dir/$n/format.log" 2>&1 ||
        fail "broker $n: no storage: $(tail -5 "$dir/$n/format.log")"
}

# --- brokers

pid_of() { # N; nothing when it is down. The number in the file may be another process's by now.
    pid=$(cat "$dir/$1/pid" 2>/dev/null) || return 0
    case $(ps -ww -p "$pid" -o args= 2>/dev/null) in *"$dir/$1/server.properties"*) echo "$pid" ;; esac
}

launch() { # N...; returns when each has answered
    fetch
    for i in "$@"; do
        [ -z "$(pid_of "$i")" ] || continue
        configure "$i"
        [ -f "$dir/$i/data/meta.properties" ] || format "$i" &
    done
    wait
    for i in "$@"; do
        [ -z "$(pid_of "$i")" ] || continue
        [ -f "$dir/$i/data/meta.properties" ] || fail "broker $i has no storage"
        [ ! -f "$dir/$i/log" ] || mv "$dir/$i/log" "$dir/$i/log.last"
        (trap '' HUP INT; java_ -Xms96m -Xmx320m kafka.Kafka "$dir/$i/server.properties") \
            </dev/null >"$dir/$i/log" 2>&1 &
        echo $! >"$dir/$i/pid"
    done
    for i in "$@"; do ready "$i"; done
}

ready() { # N
    tries=0
    # Said when it has joined the others and opened its ports to clients
    until grep -qs 'Kafka Server started' "$dir/$1/log"; do
        tries=$((tries + 1))
        # a moment for the shell to become java
        [ $tries -lt 10 ] || [ -n "$(pid_of "$1")" ] || fail "broker $1 ended: $(tail -20 "$dir/$1/log")"
        [ $tries -lt 1200 ] || fail "broker $1 is not ready after 120 s: $(tail -20 "$dir/$1/log")"
        sleep 0.1
    done
}

end() { # SIGNAL N...; returns when they are gone, with their locks
    signal=$1
    shift
    pids=$(for i in "$@"; do pid_of "$i"; done)
    for pid in $pids; do kill -s "$signal" "$pid" 2>/dev/null || :; done
    for pid in $pids; do
        tries=0
        while case $(ps -p "$pid" -o stat= 2>/dev/null) in '' | Z*) false ;; esac do
            tries=$((tries + 1))
            # The last brokers of three have no majority left to take leave of
            [ $tries -ne 100 ] || kill -s KILL "$pid" 2>/dev/null || :
            sleep 0.1
        done
    done
    for i in "$@"; do rm -f "$dir/$i/pid"; done
}

one() { # N, checked
    case ${1:-} in [1-9]) [ "$1" -le "$brokers" ] || fail "there are $brokers brokers" ;; *) usage >&2; exit 2 ;; esac
    echo "$1"
}

start() {
    [ -f "$dir/settings" ] || settle "$@"
    load
    launch $(every)
    addresses 0
}

[ $# -gt 0 ] || { usage >&2; exit 2; }
command=$1
shift
if [ "$command" = fetch ]; then
    fetch
    exit
fi
[ $# -gt 0 ] || { usage >&2; exit 2; }
mkdir -p "$(dirname "$1")"
dir=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
shift

case $command in
start) start "$@" ;;
run)
    start "$@"
    trap 'end TERM $(every); exit' INT TERM
    while [ -n "$(pid_of 1)" ]; do sleep 0.5; done
    fail "broker 1 ended: $(tail -20 "$dir/1/log")"
    ;;
stop)
    load
    end TERM $(every)
    ;;
start-one)
    load
    launch "$(one "$@")"
    ;;
stop-one)
    load
    end TERM "$(one "$@")"
    ;;
kill-one)
    load
    end KILL "$(one "$@")"
    ;;
status)
    load
    for i in $(every); do
        pid=$(pid_of "$i")
        echo "$i $([ -n "$pid" ] && echo up || echo down) ${pid:--} 127.0.0.1:$(at 0 "$i")"
    done
    ;;
*)
    usage >&2
    exit 2
    ;;
esac
