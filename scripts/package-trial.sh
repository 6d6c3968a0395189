#!/bin/bash
# Installs, restarts, upgrades and removes the Debian package in a system of its own that systemd
# has booted. Needs root.
#
#   scripts/package-trial.sh [PROFILE [BEFORE]]     (as scripts/deb.sh; default: release)
#
# BEFORE is a package of a version whose service was one unit; by default these programs with that
# unit.
#
# Exit status 77: it cannot be tried on this machine, for the reason that is printed.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${1:-release}
before=${2:-}
scripts/install.sh build trial

# A minimal system, made once.
system=.cache/trial-system.tar
if [ ! -e "$system" ]; then
    echo "package-trial: making a minimal system with debootstrap, once"
    place=$(mktemp -d)
    trap 'rm -rf "$place"' EXIT
    suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
    site=$(apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        awk -v suite="$suite" '$2 == suite && $3 == "main" && !found++ { print $1 }')
    packages=systemd-sysv,dbus,dbus-user-session,libpam-systemd,iproute2,iputils-ping,procps
    if ! debootstrap --variant=minbase --include=$packages "$suite" "$place" "$site" \
        >"$place.log" 2>&1; then
        echo "package-trial: debootstrap cannot make a system here: $(tail -1 "$place.log")"
        rm -f "$place.log"
        exit 77
    fi
    rm -f "$place.log"
    rm -rf "$place"/var/cache/apt/archives/*.deb
    tar -C "$place" -cf "$system.part" . && mv "$system.part" "$system"
    rm -rf "$place"
fi

place=$(mktemp -d "${TRAMA_TMPFS:-/dev/shm}/trama-trial.XXXXXX")
group=trama-trial-$$
clean() {
    [ -z "${boot:-}" ] || kill "$boot" 2>/dev/null || true
    wait || true
    for tree in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
        [ ! -d "$tree/$group" ] || find "$tree/$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
    rm -rf --one-file-system "$place"
}
trap clean EXIT
mkdir "$place/root"
tar -C "$place/root" -xf "$system"
# mktemp made it for root alone; the system's bus runs as a user of its own.
chmod 755 "$place/root"
mkdir -p "$place/root/trial/host"
for revision in 1 2; do
    scripts/deb.sh "$profile" --no-dbgsym --fast --deb-revision "$revision" \
        --output "$place/root/trial/$revision.deb" >/dev/null
done
if [ -n "$before" ]; then
    cp "$before" "$place/root/trial/0.deb"
else
    packaging/trial/one-unit.sh "$place/root/trial/1.deb" "$place/root/trial/0.deb"
fi
(cd containers && cargo deb --quiet --no-build --profile "$profile" --no-dbgsym --fast \
    --variant docker --output "$place/root/trial/docker.deb" >/dev/null)
cp packaging/trial/inside.sh "$place/root/trial/"
cat >"$place/root/etc/systemd/system/trial.service" <<'UNIT'
[Unit]
After=multi-user.target
SuccessAction=poweroff
FailureAction=poweroff
[Service]
Type=oneshot
TimeoutStartSec=360
ExecStart=/bin/bash /trial/inside.sh
StandardOutput=file:/trial/log
StandardError=inherit
[Install]
WantedBy=default.target
UNIT
ln -s ../trial.service "$place/root/etc/systemd/system/multi-user.target.wants/"

# A control group of its own, in each hierarchy that systemd may use there.
for tree in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
    [ -e "$tree/cgroup.procs" ] && mkdir -p "$tree/$group"
done
enter='for file in /sys/fs/cgroup{,/unified,/systemd}/'$group'/cgroup.procs; do [ ! -e "$file" ] || echo $$ >"$file"; done'
if ! systemd-nspawn --quiet --register=no --keep-unit --private-network --pipe \
    --directory="$place/root" /bin/true 2>"$place/console" </dev/null; then
    echo "package-trial: no container can be started here: $(tail -1 "$place/console")"
    exit 77
fi
# systemd's console must be a terminal.
SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 timeout -k 5 420 script -qec "$enter; exec systemd-nspawn --quiet \
    --register=no --keep-unit --private-network --boot --directory=$place/root --console=interactive \
    --bind=/dev/net/tun --bind-ro=/usr:/trial/host --capability=CAP_NET_ADMIN,CAP_BPF" \
    "$place/console" </dev/null >/dev/null 2>&1 &
boot=$!
wait "$boot" || true
boot=
cat "$place/root/trial/log" 2>/dev/null || tail -20 "$place/console"
grep -qx "trial: passed" "$place/root/trial/log"
