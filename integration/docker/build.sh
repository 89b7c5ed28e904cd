#!/bin/sh
# usage: integration/docker/build.sh IMAGE
#
# Builds the Dockerfile as IMAGE from this tree as it is. It is what
# `docker build -t IMAGE .` does, but works where neither a registry nor a Go
# module proxy can be reached from inside the build: the base images are made if
# need be, and the modules travel in the build context.
set -eu
image=${1:?usage: $0 IMAGE}
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
"$here/base-images.sh"

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
tar -c --exclude=./.git --exclude=./bin --exclude=./vendor . | tar -C "$context" -x
(cd "$context" && go mod vendor)

# The network of the host: an engine started for a test has no other.
docker build --force-rm --network host -t "$image" \
	--build-arg VERSION="$("$here/../version.sh")" "$context"

# The build stage's image, and what had the name IMAGE before, serve nobody now.
docker image prune -f --filter label=mapfs.stage >/dev/null
