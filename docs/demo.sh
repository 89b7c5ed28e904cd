#!/bin/sh
# usage: docs/demo.sh MAPFS
#
# Shows the binary MAPFS at work on a directory of its own, command by command,
# and cleans up behind itself. `make demo` builds mapfs and runs this.
set -eu
PATH=$(cd "$(dirname "$1")" && pwd):$PATH

top=$(mktemp -d)
lab=$top/lab # where exercises are followed
mkdir "$top/backing" "$top/mnt" "$lab" "$lab/backing" "$lab/mnt"
cleanup() {
	trap - EXIT INT TERM
	for mnt in "$top/mnt" "$lab/mnt"; do
		if grep -qs " $mnt " /proc/self/mountinfo; then
			mapfs umount "$mnt" || fusermount3 -u -z "$mnt"
		fi
	done
	# Not while something is mounted: rm would go through the mount.
	rmdir "$top/mnt" "$lab/mnt" && rm -rf "$top"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
	echo "demo: $1" >&2
	exit 1
}

note() { printf '\n# %s\n' "$1"; }

# show prints a command line and runs it.
show() {
	printf '$ %s\n' "$1"
	eval "$1"
}

# exercise shows the commands of an exercise of the lab.
exercise() {
	mapfs lab "$1" >text
	note "Exercise $(sed -n '1s/^# //p' text)"
	sed -n '/^```console$/,/^```$/s/^\$ //p' text >commands
	# Some of them are shown because they fail.
	while IFS= read -r line <&9; do show "$line" 2>&1 || :; done 9<commands
}

cd "$top"
note 'Mount a mirror of the directory backing on mnt.'
show "mapfs backing mnt"
show "grep ' $top/mnt ' /proc/self/mounts"

note 'What is written through the mount, the mount gives back.'
show "echo 'every file is one memory mapping' > mnt/f"
show "cat mnt/f"
show "dd if=/dev/urandom of=big bs=1M count=8 status=none && cp big mnt/big"
show "dd if=mnt/big bs=4097 status=none | cmp - big && echo the same bytes"

note 'The file is mapped, shared and writable, by the daemon: rw-s.'
# The only process that maps files of this backing directory.
pid=$(grep -ls " $top/backing/" /proc/[0-9]*/maps | cut -d/ -f3)
[ "$pid" ] || fail 'no process maps the file'
show "grep -h ' $top/backing/f' /proc/$pid/maps"

note 'Truncating down and up leaves zeros, not old bytes.'
show "truncate -s 5 mnt/f"
show "truncate -s 20 mnt/f"
show "od -c mnt/f"

note 'sync is msync of the mapping: the bytes are in backing, on the device.'
show "printf 'stored, then synced' > mnt/f"
show "sync mnt/f"
show "cat backing/f; echo"
show "cmp big backing/big && echo the same bytes"

note 'Unmount. The daemon writes everything back and ends.'
show "mapfs umount mnt"
show "ls -l backing"

[ "$(cat backing/f)" = 'stored, then synced' ] || fail 'backing/f has other bytes'
cmp big backing/big || fail 'backing/big has other bytes'
if grep -qs " $top/mnt " /proc/self/mountinfo; then
	fail 'mnt is still mounted'
fi

note 'The lab begins like this; "mapfs lab" has the rest, and says why.'
cd "$lab"
show 'mapfs backing mnt'
for number in 1 2 3; do
	exercise "$number"
done
show 'mapfs umount mnt'
printf '\nThe demo is done; %s is removed.\n' "$top"
