#!/bin/bash
# Before a run of the tests (`.config/nextest.toml`): folders for its temporary files, and an
# end to those of runs that are over. What tests clean up themselves is gone by then, but a test that
# was killed could not.
set -euo pipefail

# The second one is in memory, as /run is.
for variable in TMPDIR=${TMPDIR:-/tmp} TRAMA_TMPFS=/dev/shm; do
    folder=${variable#*=}/trama-tests
    for left in "$folder".*; do
        [ -e "$left" ] && [ ! -e "/proc/${left##*.}" ] && rm -rf "$left"
    done
    # The process id is that of nextest, which started this.
    mkdir -p "$folder.$PPID"
    echo "${variable%%=*}=$folder.$PPID" >>"$NEXTEST_ENV"
done
