#!/bin/sh
# usage: integration/docker/with-engine.sh COMMAND [ARG...]
#
# Runs COMMAND with a Docker engine that answers. Where none does, it installs
# the package docker.io and, if that did not start the engine, runs dockerd until
# COMMAND ends. Where no engine can be had it says so and runs COMMAND all the
# same: the tests that need Docker then skip, or fail if MAPFS_REQUIRE names it.
set -eu
here=$(dirname "$0")
PATH=$PATH:/usr/sbin:/sbin

answers() { docker version >/dev/null 2>&1; }

without() {
	echo "*** NO DOCKER: $1" >&2
	echo "*** What needs it is NOT TESTED, or fails if MAPFS_REQUIRE names docker." >&2
	shift
	exec "$@"
}

if answers; then
	exec "$@"
fi
"$here/../setup.sh" docker || without "docker.io could not be installed" "$@"
if answers; then
	exec "$@"
fi

sudo=
if [ "$(id -u)" -ne 0 ]; then
	sudo=sudo
fi
tmp=$(mktemp -d)
pid=
stop() {
	trap - EXIT INT TERM
	if [ "$pid" ]; then
		$sudo kill "$pid" 2>/dev/null || true
		wait || true
		# dockerd leaves the network namespace of its containers mounted there.
		$sudo umount "$tmp/exec/netns/default" 2>/dev/null || true
	fi
	$sudo rm -rf "$tmp"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# No bridge and no packet filter: they would outlive the engine, and neither
# the build (network of the host) nor the containers (none) use them. The group
# lets a user that is not root in.
echo "starting dockerd for the time of this run"
$sudo dockerd --bridge=none --iptables=false --ip6tables=false \
	--group "$(id -gn)" --exec-root "$tmp/exec" --pidfile "$tmp/pid" \
	>"$tmp/log" 2>&1 </dev/null &
for _ in $(seq 120); do
	answers && break
	kill -0 $! 2>/dev/null || break
	sleep 0.5
done
pid=$(cat "$tmp/pid" 2>/dev/null || true)
if ! answers; then
	tail -n 20 "$tmp/log" >&2
	stop
	without "dockerd does not start" "$@"
fi
status=0
"$@" || status=$?
exit "$status"
