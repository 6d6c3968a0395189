#!/bin/bash
# Installs what trama's commands need and this machine lacks; says it before doing it.
#
#   scripts/install.sh [build] [test] [demo] [bench] [gates] [deb] [trial]    (default: build)
#
# System packages come from the distribution by apt-get, Rust tools by cargo, and the spelling
# checker, as a binary, from PyPI into .cache/python. Nothing is touched that is already there, so a
# second run only looks.
set -euo pipefail
cd "$(dirname "$0")/.."
set -f      # the lists below hold patterns that only `have` expands

# What each group needs, as PROGRAM:PACKAGE, or FILE:PACKAGE with an absolute path or pattern.
# A package is installed only if what it is wanted for is absent.
build="cc:gcc make:make git:git"
guests="ip:iproute2 cpio:cpio depmod:kmod xz:xz-utils \
    zstd:zstd iperf3:iperf3 tcpdump:tcpdump ethtool:ethtool flock:util-linux setpriv:util-linux \
    ping:iputils-ping /usr/lib/ipxe/qemu/pxe-virtio.rom:ipxe-qemu"
# Firmware that boots from the network, a second VMM's management, and tools of the field.
peers="/usr/share/OVMF/OVMF_CODE_4M.fd:ovmf \
    /usr/lib/grub/x86_64-efi/monolithic/grubnetx64.efi:grub-efi-amd64-bin \
    /usr/lib/u-boot/qemu_arm64/u-boot.bin:u-boot-qemu \
    /lib/systemd/system/libvirtd.service:libvirt-daemon-system virsh:libvirt-clients \
    dig:bind9-dnsutils socat:socat tshark:tshark capinfos:wireshark-common systemd-socket-activate:systemd \
    /usr/lib/cni/host-local:containernetworking-plugins \
    /usr/lib/python3/dist-packages/scapy:python3-scapy"
testpmd="dpdk-testpmd:dpdk-dev \
    /usr/lib/*/dpdk/pmds-*/librte_net_virtio.so:^librte-net-virtio[0-9.]*\$ \
    /usr/lib/*/dpdk/pmds-*/librte_net_vhost.so:^librte-net-vhost[0-9.]*\$"
declare -A needs=(
    [build]="$build"
    [demo]="$build $guests"
    [test]="$build $guests $testpmd $peers ovs-vsctl:openvswitch-switch \
        /usr/lib/python3*/ensurepip:python3-venv \
        prometheus:prometheus chromium:chromium curl:curl dnsmasq:dnsmasq-base busybox:busybox nft:nftables zsh:zsh fish:fish \
        dhclient:isc-dhcp-client dhcpcd:dhcpcd-base perfdhcp:kea-admin dhcpstarv:dhcpstarv"
    [gates]="valgrind:valgrind"
    [deb]="$build lowdown:lowdown lintian:lintian"
    [trial]="$build lowdown:lowdown debootstrap:debootstrap systemd-nspawn:systemd-container"
    [bench]="$build $guests $testpmd \
        ovs-vsctl:openvswitch-switch \
        /usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk:openvswitch-switch-dpdk \
        vde_switch:vde2 /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf:fonts-dejavu-core \
        pasta:passt slirp4netns:slirp4netns perfdhcp:kea-admin dnsmasq:dnsmasq-base"
)
declare -A tools=( [test]="cargo-nextest cargo-deny" [deb]="cargo-deb" [trial]="cargo-deb" )
# Pinned: another version knows other words.
declare -A wheels=( [test]="typos==1.52.0 playwright==1.65.2 axe-playwright-python==0.1.8" )

say() { echo "install: $*"; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
export DEBIAN_FRONTEND=noninteractive
apt() { as_root apt-get -qq -y -o DPkg::Lock::Timeout=600 "$@" </dev/null; }

have() {
    case $1 in
        /*) compgen -G "$1" >/dev/null ;;
        *) PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ;;
    esac
}

# The index of packages, once, when there is none or a package is not in it.
index_fresh=
refresh_index() {
    [ -z "$index_fresh" ] || return 0
    say "refreshing the package index (apt-get update)"
    apt update
    index_fresh=yes
}

install_packages() {
    local missing=()
    for pair in $(tr ' ' '\n' <<<"$*" | sort -u); do
        have "${pair%%:*}" || missing+=("${pair#*:}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
    if ! have apt-get; then
        say "this machine has no apt-get; install by hand: ${missing[*]}" >&2
        exit 1
    fi
    refresh_index
    say "system packages: ${missing[*]}"
    apt install --no-install-recommends "${missing[@]}" >/dev/null
}

# QEMU 7, Debian 12's, crashes when a vhost-user device uses MSI-X and there is no KVM.
# install_qemu PROGRAM PACKAGE
install_qemu() {
    local found candidate release
    if have "$1"; then
        found=$("$1" --version | sed -n '1s/[^0-9]*\([0-9]*\).*/\1/p')
    fi
    [ "${found:-0}" -lt 8 ] || return 0
    refresh_index
    candidate=$(apt-cache policy "$2" | sed -n 's/ *Candidate: //p')
    local target=()
    if dpkg --compare-versions "$candidate" lt 1:8; then
        release=$(. /etc/os-release && echo "$VERSION_CODENAME")
        add_backports "$release"
        target=(-t "$release-backports")
    fi
    say "system packages: $2 ${target[*]}"
    apt install --no-install-recommends "${target[@]}" "$2" >/dev/null
}

# Debian's suite of newer packages for this release. Nothing comes from it unasked.
add_backports() {
    local release=$1 list=/etc/apt/sources.list.d/trama-backports.list site
    apt-cache policy | grep -q "n=$release-backports" && return 0
    site=$(apt-get indextargets --format '$(SITE) $(RELEASE)' 'Created-By: Packages' |
        awk -v release="$release" '$2 == release { print $1; exit }')
    say "adding the suite $release-backports of $site in $list"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
        "$site $release-backports main" | as_root tee "$list" >/dev/null
    apt update
}

install_tools() {
    for tool in "$@"; do
        have "$tool" && continue
        say "cargo install $tool (compiles; some minutes)"
        # Used a few times and never measured: the quickest build will do.
        CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off \
            CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=false \
            cargo install --quiet --locked "$tool"
    done
}

# Packages of PyPI, as wheels: a compiled program, and what drives a browser.
install_wheels() {
    local python=.cache/python
    for wheel in "$@"; do
        [ ! -e "$python/$wheel" ] || continue
        say "pip install $wheel, into $python"
        python3 -m venv "$python"
        "$python/bin/pip" --quiet --disable-pip-version-check install --only-binary :all: "$wheel"
        touch "$python/$wheel"
    done
}

if ! have cargo; then
    say "Rust is missing: install it from https://rustup.rs, then run this again" >&2
    exit 1
fi
for group in "${@:-build}"; do
    if [ -z "${needs[$group]:-}" ]; then
        say "unknown group $group; there are: ${!needs[*]}" >&2
        exit 2
    fi
    install_packages ${needs[$group]}
    case $group in bench | demo | test) install_qemu qemu-system-x86_64 qemu-system-x86 ;; esac
    case $group in test) install_qemu qemu-system-aarch64 qemu-system-arm ;; esac
    install_tools ${tools[$group]:-}
    install_wheels ${wheels[$group]:-}
done
