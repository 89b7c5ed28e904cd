#!/bin/sh
# The image's entry point: "docker run IMAGE [options] BACKING MOUNTPOINT" mounts and
# serves, as process 1, so that docker stop makes mapfs sync, unmount and end with 0.
# Any other words are a command of mapfs's: "docker run IMAGE lab 1".
case ${1-} in
mount)
	shift
	exec mapfs -f "$@"
	;;
'' | -* | */*) exec mapfs -f "$@" ;;
*) exec mapfs "$@" ;;
esac
