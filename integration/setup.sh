#!/bin/sh
# Installs the Debian packages that a make target needs and the machine lacks.
#
# usage: integration/setup.sh TARGET      install what TARGET (build, demo, test, bench) needs
#        integration/setup.sh -l TARGET   list the programs among it, joined by commas
#
# It is the one place that knows package names. A package counts as installed
# when what we use of it is there, however it came there, so a second run asks
# apt nothing.
set -eu

# PACKAGE:WHAT, WHAT being a program, or a file if it has a slash.
mount_needs='fuse3:fusermount3'
test_needs="$mount_needs
attr:setfattr acl:setfacl
btrfs-progs:btrfs e2fsprogs:mkfs.ext4 e2fsprogs:chattr e2fsprogs:filefrag xfsprogs:mkfs.xfs squashfs-tools:mksquashfs
git:git lmdb-utils:mdb_load rsync:rsync sqlite3:sqlite3 tar:tar
gcc:gcc libc6-dev:/usr/include/stdio.h liblmdb-dev:/usr/include/lmdb.h
chromium-headless-shell:chromium-headless-shell libxml2-utils:xmllint
mandoc:mandoc strace:strace tmux:tmux util-linux:mount util-linux:setpriv bsdextrautils:hexdump"

# The last line is what it takes to build libfuse's example passthrough_hp.
bench_needs="$mount_needs
bindfs:bindfs fio:fio strace:strace
git:git sqlite3:sqlite3 tar:tar
g++:g++ libfuse3-dev:/usr/include/fuse3/fuse_lowlevel.h xz-utils:xz"

# mkfs and mount helpers are not in every user's PATH.
PATH=$PATH:/usr/sbin:/sbin

list=
if [ "${1-}" = -l ]; then
	list=yes
	shift
fi
case ${1-} in
build) needs= ;;
demo) needs=$mount_needs ;;
test) needs=$test_needs ;;
bench) needs=$bench_needs ;;
docker) needs='docker.io:dockerd debootstrap:debootstrap' ;;
*)
	echo "usage: $0 [-l] build|demo|test|bench|docker" >&2
	exit 2
	;;
esac

if [ "$list" ]; then
	for need in $needs; do
		case ${need#*:} in */*) ;; *) echo "${need#*:}" ;; esac
	done | paste -sd, -
	exit
fi

if ! command -v go >/dev/null; then
	echo "mapfs is written in Go: install Go ($(grep '^go ' "$(dirname "$0")/../go.mod") or newer) and put it on the PATH" >&2
	exit 1
fi

here() {
	case $1 in
	*/*) [ -e "$1" ] ;;
	*) command -v "$1" >/dev/null ;;
	esac
}

packages=
for need in $needs; do
	here "${need#*:}" || packages="$packages ${need%%:*}"
done
[ "$packages" ] || exit 0

if ! command -v apt-get >/dev/null; then
	echo "make $1 needs these packages, and here is no apt-get to install them:$packages" >&2
	exit 1
fi
sudo=
if [ "$(id -u)" -ne 0 ]; then
	sudo=sudo
	if ! command -v sudo >/dev/null; then
		echo "make $1 needs these packages; install them as root:$packages" >&2
		exit 1
	fi
fi

echo "make $1 installs with apt-get:$packages"
# The lists of a fresh or an old machine name versions that are no longer
# served, so they are fetched anew. apt's own words are shown only if it fails.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086 # $packages is a list, $sudo may be nothing
if ! { $sudo apt-get update -q &&
	$sudo env DEBIAN_FRONTEND=noninteractive \
		apt-get install -q -y --no-install-recommends $packages; } >"$log" 2>&1 </dev/null; then
	cat "$log" >&2
	exit 1
fi
