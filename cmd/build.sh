#!/bin/sh
# usage: cmd/build.sh OUT [FLAG...]
#
# Builds the command into the file OUT, with more flags for go build.
set -eu
out=$1
shift

# Address space can be limited (ulimit -v), and Go takes much. Without C: its library
# takes half a gigabyte. With the heap in one place, as before Go 1.26: in one that is
# chosen at random it can lie across two areas of 64 MiB, and a start then fails now and
# then. A Go that does not know the setting needs none.
export CGO_ENABLED=0
GOEXPERIMENT=$(GOEXPERIMENT=norandomizedheapbase64 go env GOEXPERIMENT 2>/dev/null || :)
export GOEXPERIMENT

case $out in
/*) ;;
*) out=$PWD/$out ;;
esac
cd "$(dirname "$0")/.."
exec go build -o "$out" "$@" ./cmd/mapfs
