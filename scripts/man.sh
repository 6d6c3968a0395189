#!/bin/bash
# Makes the manual pages: scripts/man.sh PROGRAMS FOLDER
#
# tramactl prints its own, from its table of commands; the others are Markdown in packaging/man, and
# trama.toml(5) includes docs/configuration.md.
set -euo pipefail
programs=$(realpath "$1") folder=$(realpath -m "$2")
cd "$(dirname "$0")/.."
mkdir -p "$folder"

# Options are options, not dashes, and names have underscores.
page() {
    lowdown -s -tman --nroff-nolinks --parse-no-intraemph --out-no-smarty \
        -M "title=${1%.*}" -M "section=${1##*.}" -M source=trama >"$folder/$1"
}
"$programs/tramactl" man >"$folder/tramactl.1"
for source in packaging/man/*.md; do
    name=$(basename "$source" .md)
    sed -e '/^@CONFIGURATION@$/{
        r docs/configuration.md
        d
        }' "$source" | awk -f packaging/man/tables-to-terms.awk | page "$name"
done
for name in "$folder"/*.[1-9]; do gzip -9nf "$name"; done
