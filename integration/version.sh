#!/bin/sh
# Prints the version that a build of this tree gets: the nearest tag and the
# commit, or "dev" for a tree without a history.
cd "$(dirname "$0")/.." && git describe --tags --always --dirty 2>/dev/null || echo dev
