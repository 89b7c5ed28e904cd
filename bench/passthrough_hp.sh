#!/bin/sh
# usage: bench/passthrough_hp.sh FILE
#
# Builds libfuse's example passthrough_hp, of the version that Debian has, into FILE.
# Debian ships the example as source only, and most machines' apt knows no sources:
# so a scratch apt, made from the machine's own list of Debian repositories, fetches
# it. The machine's apt configuration is read and never changed.
#
# Fails, saying why, where this cannot be had; the benchmark then goes without.
set -eu

case $1 in /*) to=$1 ;; *) to=$PWD/$1 ;; esac
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
	echo "passthrough_hp: $1" >&2
	exit 1
}

for program in apt-get g++ tar xz; do
	command -v "$program" >/dev/null || fail "no $program here"
done
[ -e /usr/include/fuse3/fuse_lowlevel.h ] || fail 'libfuse3-dev is not installed'

# The same repositories, asked for sources: both ways apt lets them be written.
mkdir -p "$scratch/sources" "$scratch/state/lists/partial" "$scratch/cache/archives/partial"
for list in /etc/apt/sources.list.d/*.sources; do
	[ -e "$list" ] && sed 's/^Types:.*/Types: deb-src/' "$list" >"$scratch/sources/${list##*/}"
done
for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
	[ -e "$list" ] && sed -n 's/^deb[[:space:]]/deb-src /p' "$list" >"$scratch/sources/${list##*/}.list"
done
cat >"$scratch/apt.conf" <<EOF
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$scratch/sources";
Dir::State "$scratch/state";
Dir::State::status "/var/lib/dpkg/status";
Dir::Cache "$scratch/cache";
APT::Sandbox::User "root";
EOF
export APT_CONFIG="$scratch/apt.conf"

cd "$scratch"
# A repository without sources fails the update; only fuse3's is wanted.
apt-get update -q >update.log 2>&1 || true
if ! apt-get source -q --download-only fuse3 >source.log 2>&1; then
	cat update.log source.log >&2
	fail 'apt-get source fuse3 failed'
fi
tar xf fuse3_*.orig.tar.xz
cd fuse-3*/
# fuse's own build wants meson; these are what that finds out on Linux.
g++ -O2 -std=c++17 -w -D_FILE_OFFSET_BITS=64 -DHAVE_UTIMENSAT -DHAVE_POSIX_FALLOCATE -DHAVE_SETXATTR \
	-I/usr/include/fuse3 \
	example/passthrough_hp.cc -o "$scratch/passthrough_hp" -lfuse3 -lpthread
mkdir -p "$(dirname "$to")"
mv "$scratch/passthrough_hp" "$to"
