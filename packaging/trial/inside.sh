#!/bin/bash
# What a user sees of the package, in a system that systemd has booted: installation, restarts,
# upgrades, removal. Runs as root in a container of its own; the packages are in /trial.
set -Eeuo pipefail
# What has failed comes last, where it is seen first.
trap 'failed="line $LINENO: $BASH_COMMAND: exit $?${why:+: $why}"
    journalctl --no-pager -u trama -u "trama-helper*" | tail -60
    echo "trial: $failed"' ERR

step() { echo "trial: $*"; }
fail() { why=$*; false; }
main_process() { systemctl show --property MainPID --value trama; }
index() { ip netns exec "$1" cat /sys/class/net/eth0/ifindex; }

# Waits up to so many seconds until a command succeeds.
wait_for() {
    local limit=$1 end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || fail "not within $limit s: $*"
        sleep 0.05
    done
}

# What runs programs of the system around this one.
outside=/trial/host
loader=("$outside/lib64/ld-linux-x86-64.so.2" --library-path "$outside/lib/x86_64-linux-gnu:$outside/lib")

# A guest's VMM of the host's system. Its guest does not run.
vmm() {
    "${loader[@]}" "$outside/bin/qemu-system-x86_64" -L "$outside/share/qemu" -L "$outside/share/seabios" -S -nodefaults -display none \
        -qmp unix:/run/vmm.sock,server=on,wait=off -m 128M \
        -object memory-backend-memfd,id=mem,size=128M,share=on -machine q35,memory-backend=mem \
        -chardev socket,id=c,path=/run/trama/vm1.sock,reconnect-ms=1000 \
        -netdev vhost-user,id=n,chardev=c -device virtio-net-pci,netdev=n,romfile= \
        -D /run/vmm.log -trace 'vhost_user_*' &
    vmm=$!
    wait_for 10 is_connected
}
is_connected() { tramactl get Interface vm1 status:state | grep -q connected; }
# With a new connection QEMU sends its requests again.
requests() { wc -l </run/vmm.log; }

answers() { grep -c ttl= /run/ping.log; }

# Frames between the hosts from before the command to after it: none may be lost.
unnoticed() {
    local before devices asked answered last
    before=$(main_process) devices="$(index a) $(index b)" asked=$(requests)
    ip netns exec a ping -n -i 0.01 -c 100000 10.1.0.2 >/run/ping.log 2>&1 &
    local ping=$!
    "$@"
    # The process that the restart ends in, not the one in between.
    wait_for 20 eval '[ "$(main_process)" != '"$before"' ] && systemctl -q is-active trama'
    wait_for 5 eval '[ "$(answers)" -gt '"$(answers)"' ]'
    kill -INT "$ping"
    wait "$ping" || true
    # Those after the last one that was answered were on their way.
    read -r answered last < <(sed -n 's/.*icmp_seq=\([0-9]*\) ttl=.*/\1/p' /run/ping.log | sort -nu |
        awk '{ last = $1 } END { print NR, last }')
    [ "$answered" = "$last" ] || fail "$answered of $last pings were answered"
    [ "$devices" = "$(index a) $(index b)" ] || fail "other devices"
    kill -0 "$vmm" && [ "$asked" = "$(requests)" ] ||
        fail "the VMM has sent further requests: $(tail -n +$((asked + 1)) /run/vmm.log)"
    step "$answered of $last pings were answered, devices and the VMM's connection are the same"
}

# Whether a process has this user and no capability in any set.
has_no_more() {
    local status="/proc/${1:-none}/status" user
    user=$(id -u "$2")
    [ -e "$status" ] || return
    grep -qx "Uid:"$'\t'"$user"$'\t'"$user"$'\t'"$user"$'\t'"$user" "$status" &&
        [ "$(grep -c '^Cap...:'$'\t''0000000000000000$' "$status")" = 5 ] &&
        grep -qx "NoNewPrivs:"$'\t'1 "$status"
}
keeper() { pgrep -x trama:keeper; }
helper() { pgrep -x trama:helper; }

step "installation of the version whose service was one unit, of root's"
dpkg -i /trial/0.deb >/run/dpkg.log 2>&1 || { cat /run/dpkg.log; false; }
systemctl -q is-active trama && systemctl -q is-enabled trama
[ "$(stat -c %u "/proc/$(main_process)")" = 0 ]

step "two hosts, a gateway, and a VMM"
ip netns add a && ip netns add b
tramactl add-br lab -- add-port lab vm1 -- set Interface vm1 type=vhost-user
for host in a:1 b:2; do
    tramactl add-port lab "${host%:*}" -- set Interface "${host%:*}" type=tap \
        options:ifname=eth0 options:netns="${host%:*}" options:address="10.1.0.${host#*:}/24"
done
tramactl add-br out -- set Bridge out mode=nat-network subnet=10.0.9.0/24
wait_for 10 eval 'tramactl flows out >/dev/null 2>&1'
ip netns exec a ping -q -c 1 -W 5 10.1.0.2 >/dev/null
vmm
gateway=$(pgrep -x trama:out)
chmod 600 /etc/trama/trama.toml

step "upgrade to two units";     unnoticed dpkg -i /trial/1.deb
# A gateway that speaks another protocol is started again, which is said.
[ "$gateway" = "$(pgrep -x trama:out)" ] ||
    journalctl -u trama | grep -q "gateway: process $gateway is of version .*; starts again"
has_no_more "$(main_process)" trama
# The keeper of before has the VMM's connection.
[ "$(stat -c %u "/proc/$(keeper)")" = 0 ]
restarts() {
    step "systemctl restart";     unnoticed systemctl restart trama
    step "tramactl upgrade";      unnoticed tramactl upgrade
    step "kill -9 of the switch"; unnoticed kill -9 "$(main_process)"
    step "SIGUSR2";               unnoticed kill -USR2 "$(main_process)"
    has_no_more "$(main_process)" trama
}
restarts

step "stop"
began=$SECONDS
systemctl stop trama
ip netns exec a ping -q -c 1 -W 1 10.1.0.2 >/dev/null || fail "frames stop before the time is over"
wait_for 15 eval '! ip netns exec a test -e /sys/class/net/eth0'
[ $((SECONDS - began)) -ge 9 ] || fail "ended after $((SECONDS - began)) s"
wait_for 5 eval '! pgrep -x "tramad|trama:.*" >/dev/null'

step "start"
systemctl start trama
wait_for 10 is_connected
wait_for 10 eval 'ip netns exec a ping -q -c 1 -W 1 10.1.0.2 >/dev/null'
[ "$(stat -c %U:%G:%a /run/trama/control.sock)" = root:trama:660 ]
[ "$(stat -c %U:%a /run/trama-helper/socket /run/trama /var/lib/trama /etc/trama | tr '\n' ' ')" = \
    "trama:600 root:755 root:755 root:755 " ]
getent passwd trama-gateway >/dev/null
for page in tramactl tramad trama.toml trama-vhost-net; do ls /usr/share/man/man?/"$page".?.gz >/dev/null; done
[ "$(readlink -f /usr/lib/trama/ovs/ovs-vsctl)" = /usr/bin/tramactl ]
[ "$(readlink -f /usr/lib/x86_64-linux-gnu/wireshark/extcap/trama-extcap)" = /usr/bin/tramactl ]
PATH=/usr/lib/trama/ovs:$PATH ovs-vsctl list-br | grep -qx lab

step "one limit for all processes"
systemctl set-property --runtime trama.slice MemoryMax=2G
for process in "$(main_process)" "$(keeper)" "$(helper)" "$(pgrep -x trama:out)"; do
    grep -q "/trama.slice/" "/proc/$process/cgroup"
done

step "privileges"
for process in "$(main_process)" "$(keeper)"; do has_no_more "$process" trama; done
has_no_more "$(pgrep -x trama:out)" trama-gateway
# What is left of the helper are above all its capabilities.
for unit in trama "$(systemctl list-units --plain --no-legend 'trama-helper@*' | cut -d' ' -f1)"; do
    systemd-analyze security --no-pager "$unit" | tail -1
done
systemd-analyze security --no-pager --threshold=30 trama >/dev/null
useradd -m guest
usermod -aG trama guest
runuser -u guest -- tramactl list-br | grep -qx lab
printf '\n[daemon]\nweb = "127.0.0.1:9478"\n' >>/etc/trama/trama.toml
tramactl reload
wait_for 10 pgrep -x trama:web
has_no_more "$(pgrep -x trama:web)" trama-gateway
ask() {
    exec 3<>/dev/tcp/127.0.0.1/9478
    printf 'GET %s HTTP/1.1\r\nhost: 127.0.0.1:9478\r\n%s\r\n' "$1" "${2:+cookie: $2$'\r\n'}" >&3
    cat <&3
}
link=$(tramactl web)
session=$(ask "/?code=${link##*=}" "" | sed -n 's/^set-cookie: \([^;]*\);.*/\1/p')
shows_lab() { ask /v1/state "$session" | grep -q '"lab"'; }
wait_for 10 shows_lab
refused=$(! runuser -u guest -- tramad --helper /run/trama-helper/socket 2>&1)
grep -q "trama-helper/socket: Permission denied" <<<"$refused" || fail "$refused"
gpasswd -d guest trama >/dev/null
restarts
wait_for 10 shows_lab

step "kill -9 of the keeper"
kill -9 "$(keeper)"
wait_for 10 eval 'has_no_more "$(keeper)" trama'
wait_for 10 is_connected
step "systemctl restart";        unnoticed systemctl restart trama
step "kill -9 of the gateway"
kill -9 "$(pgrep -x trama:out)"
wait_for 10 eval 'has_no_more "$(pgrep -x trama:out)" trama-gateway'
wait_for 10 eval 'tramactl flows out >/dev/null 2>&1'
step "kill -9 of the helper"
kill -9 "$(helper)"
ip netns exec a ping -q -c 1 -W 1 10.1.0.2 >/dev/null
found=$(tramactl doctor || true)
grep -q "no helper runs: .*; systemctl restart trama starts one" <<<"$found" || fail "$found"
unnoticed systemctl restart trama
helper >/dev/null
step "systemctl restart with a fault in the file"
cp /etc/trama/trama.toml /run/good.toml
echo 'garbage = [' >>/etc/trama/trama.toml
unnoticed systemctl restart trama
journalctl -u trama | grep -q "goes on with the configuration that was in force"
cat /run/good.toml >/etc/trama/trama.toml
step "restart of the helpers' socket"
before=$(main_process)
systemctl restart trama-helper.socket
[ "$before" = "$(main_process)" ]
step "systemctl restart";        unnoticed systemctl restart trama
step "systemctl reload"
systemctl reload trama
wait_for 5 eval 'journalctl -u trama | grep -q "reloaded: "'
step "upgrade of the package";   unnoticed dpkg -i /trial/2.deb
[ "$(tramactl list-br | tr '\n' ' ')" = "lab out " ]

step "Docker's plug-in"
dpkg -i /trial/docker.deb >/run/dpkg.log 2>&1 || { cat /run/dpkg.log; false; }
systemctl -q is-active trama-docker && systemctl -q is-enabled trama-docker
ask() {
    "${loader[@]}" "$outside/bin/curl" -sS --unix-socket /run/docker/plugins/trama.sock -d "$2" \
        "http://d/NetworkDriver.$1"
}
ids='"NetworkID":"0123456789abcdef","EndpointID":"0123456789abcdef"'
[ "$(ask CreateNetwork "{$ids,\"IPv4Data\":[{\"Pool\":\"10.0.8.0/24\",\"Gateway\":\"10.0.8.1/24\"}]}")" = "{}" ]
ask CreateEndpoint "{$ids,\"Interface\":{\"Address\":\"10.0.8.2/24\"}}" | grep -q 02:42:0a:00:08:02
systemctl restart trama-docker
ip -o link show trm0123456789a | grep -q DOWN
[ "$(ask DeleteEndpoint "{$ids}")$(ask DeleteNetwork "{$ids}")" = "{}{}" ]
wait_for 5 eval '! ip link show trm0123456789a 2>/dev/null'
[ "$(tramactl list-br | tr '\n' ' ')" = "lab out " ]
systemd-analyze security --no-pager trama-docker | tail -1
dpkg --purge trama-docker >/run/dpkg.log 2>&1 || { cat /run/dpkg.log; false; }
[ ! -e /run/docker/plugins/trama.sock ]
rmdir /run/docker/plugins /run/docker

step "a user's own daemon"
loginctl enable-linger guest
wait_for 10 systemctl -q is-active "user@$(id -u guest)"
systemctl --user -M guest@ start trama
runuser -u guest -- env XDG_RUNTIME_DIR="/run/user/$(id -u guest)" tramactl add-br mine
systemctl --user -M guest@ stop trama

step "purge"
tramactl list-br | grep -qx lab
kill "$vmm"
dpkg --purge trama >/run/dpkg.log 2>&1 || { cat /run/dpkg.log; false; }
wait_for 15 eval '! ip netns exec a test -e /sys/class/net/eth0'
wait_for 5 eval '! pgrep -x "tramad|trama:.*" >/dev/null'
left=$(find / -xdev \( -path /proc -o -path /sys -o -path /trial -o -path /home -o -path /var/lib/dpkg -o -path /var/log \) -prune -o -iname '*trama*' -print)
[ -z "$left" ] || fail "left behind: $left"
! getent passwd trama-gateway trama >/dev/null && ! getent group trama >/dev/null
echo "trial: passed"
