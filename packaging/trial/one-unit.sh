#!/bin/bash
# Makes a package of the same programs whose service is one unit, of root's, as it was in earlier
# versions: packaging/trial/one-unit.sh PACKAGE NEW
set -euo pipefail
parts=$(mktemp -d)
trap 'rm -rf "$parts"' EXIT
dpkg-deb -R "$1" "$parts"
rm "$parts"/usr/lib/systemd/system/trama-helper*
cp "$(dirname "$0")/one-unit.service" "$parts/usr/lib/systemd/system/trama.service"
echo "g trama - -
u trama-gateway - - - -" >"$parts/usr/lib/sysusers.d/trama.conf"
rm -f "$parts"/DEBIAN/{prerm,postrm,md5sums}
cat >"$parts/DEBIAN/postinst" <<'SCRIPT'
#!/bin/sh
set -e
install -D -m 0644 /usr/share/trama/trama.toml /etc/trama/trama.toml
systemd-sysusers trama.conf
systemd-tmpfiles --create trama.conf
deb-systemd-helper enable trama.service
systemctl --system daemon-reload
deb-systemd-invoke start trama.service
SCRIPT
sed -i 's/^Version: .*/Version: 0.0.1-1/' "$parts/DEBIAN/control"
dpkg-deb --root-owner-group -Zgzip -z1 -b "$parts" "$2" >/dev/null
