#!/bin/sh
# Usage: guest-image.sh [KERNEL]
#
# Builds the test guests' kernel and initramfs and prints the directory that holds them.
#
# The kernel is the distribution's cloud kernel, unpacked and not installed, or that of the package
# KERNEL: linux-image-amd64 also knows hardware that QEMU emulates (e1000). The initramfs is
# busybox with iperf3, tcpdump, ethtool and the network modules around scripts/guest-init.
# The result is kept under .cache/guest, named after what went into it: a second run only looks.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=$(dirname "$here")/.cache/guest
modules="virtio_pci virtio_console virtio_net 8021q"
package=${1:-linux-image-cloud-amd64}
case $package in *cloud*) ;; *) modules="$modules e1000" ;; esac
programs="iperf3 tcpdump ethtool"

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9                                     # several tests may ask at once: one builds

kernel=$(apt-cache depends "$package" |
    sed -n 's/.*Depends: \(linux-image-[^ ]*\).*/\1/p' | head -n 1)
if [ -z "$kernel" ]; then
    echo "guest-image: no package $package; run scripts/install.sh test" >&2
    exit 1
fi
paths=$(for program in $programs; do command -v "$program" || echo "missing:$program"; done)
case $paths in *missing:*)
    echo "guest-image: $paths; run scripts/install.sh test" >&2
    exit 1 ;;
esac
key=$( { apt-cache show --no-all-versions "$kernel" busybox-static | grep -E '^(Version|SHA256):'
         cat "$here/guest-image.sh" "$here/guest-init" $paths; } | sha256sum | cut -c 1-16)
image=$cache/${kernel#linux-image-}-$key
if [ -f "$image/done" ]; then
    echo "$image"
    exit 0
fi

echo "guest-image: building $image" >&2
work=$(mktemp -d "$cache/build.XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM
chmod 755 "$work"
(cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$kernel" busybox-static)
for package in "$work"/*.deb; do dpkg-deb -x "$package" "$work/unpacked"; done
version=$(basename "$work"/unpacked/lib/modules/*)
depmod -b "$work/unpacked" "$version"

root=$work/root
mkdir -p "$root/bin" "$root/usr/bin" "$root/modules" "$root/proc" "$root/sys" "$root/dev" \
    "$root/tmp" "$root/etc"
cp "$here/guest-init" "$root/init"
chmod 755 "$root/init"
cp "$(find "$work/unpacked" -name busybox -type f -perm -100 | head -n 1)" "$root/bin/busybox"
echo 'root:x:0:0:root:/tmp:/bin/sh' >"$root/etc/passwd"

# insmod knows no dependencies: list the files in the order that modprobe would load them.
for module in $modules; do
    modprobe -d "$work/unpacked" -S "$version" --show-depends "$module"
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
    name=$(basename "$file")
    case $name in
        *.xz)  name=${name%.xz};  xz -dc "$file" >"$root/modules/$name" ;;
        *.zst) name=${name%.zst}; zstd -qdc "$file" >"$root/modules/$name" ;;
        *.gz)  name=${name%.gz};  gzip -dc "$file" >"$root/modules/$name" ;;
        *)     cp "$file" "$root/modules/$name" ;;
    esac
    echo "/modules/$name" >>"$root/modules/order"
done

for path in $paths; do
    cp "$path" "$root/usr/bin/"
    ldd "$path" | grep -o '/[^ ]*' | while read -r library; do
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library"
    done
done

# Not compressed: the emulated processor would take longer to inflate it than QEMU to load it.
(cd "$root" && find . | LC_ALL=C sort | cpio -o -H newc --quiet) >"$work/initramfs"
mkdir -p "$image"
cp "$work/unpacked/boot/vmlinuz-$version" "$image/vmlinuz"
mv "$work/initramfs" "$image/initramfs"
touch "$image/done"
echo "$image"
