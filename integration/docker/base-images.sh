#!/bin/sh
# usage: integration/docker/base-images.sh
#
# Sees to it that the images which the Dockerfile starts from are there. They are
# pulled; where no registry can be reached they are made of Debian's packages
# and this machine's Go, under the same names.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
PATH=$PATH:/usr/sbin:/sbin
suite=bookworm
run_image=debian:$suite-slim
build_image=golang:1.26-$suite

have() { docker image inspect "$1" >/dev/null 2>&1; }
pull() { docker pull -q "$1" >/dev/null 2>&1; }

# have_or_pull IMAGE
have_or_pull() {
	have "$1" && return
	pull "$1" && echo "pulled $1"
}

if have_or_pull $run_image && have_or_pull $build_image; then
	exit
fi

"$here/../setup.sh" docker
sudo=
if [ "$(id -u)" -ne 0 ]; then
	sudo=sudo
fi

# mirror prints the address that apt itself has for the suite's main packages.
mirror() {
	apt-get indextargets --format '$(CREATED_BY) $(RELEASE) $(COMPONENT) $(REPO_URI)' |
		sed -n "s/^Packages $suite main //p" | head -n 1
}

tmp=$(mktemp -d)
trap '$sudo rm -rf "$tmp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
root=$tmp/root

uri=$(mirror)
if [ -z "$uri" ]; then
	echo "no registry answers, and apt here has no mirror of Debian $suite to make $run_image from" >&2
	exit 1
fi
if ! have $run_image; then
	echo "no registry answers: making $run_image of packages from apt's mirror"
	if ! $sudo env DEBIAN_FRONTEND=noninteractive debootstrap --variant=minbase \
		"$suite" "$root" "$uri" >"$tmp/log" 2>&1; then
		tail -n 20 "$tmp/log" >&2
		exit 1
	fi
	# What the real slim image leaves out too.
	$sudo sh -c "cd '$root' && rm -rf var/cache/apt/archives/*.deb var/lib/apt/lists/* \
		usr/share/doc/* usr/share/info/* usr/share/locale/* usr/share/man/*"
	# The image reaches the mirror the way this machine does.
	apt-config dump | grep -E '^Acquire::(Check-|https?::(.*::)?(Proxy|Verify))' |
		$sudo tee "$root/etc/apt/apt.conf.d/99host" >/dev/null
	$sudo tar -C "$root" --numeric-owner -c . |
		docker import --change 'CMD ["bash"]' - $run_image >/dev/null
fi

# A static Go program needs no C compiler: the toolchain alone will do.
echo "no registry answers: making $build_image of $run_image and this machine's Go"
docker build -q -t $build_image -f - "$(go env GOROOT)" >/dev/null <<EOT
FROM $run_image
COPY . /usr/local/go
ENV GOPATH=/go GOTOOLCHAIN=local PATH=/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
WORKDIR /go
EOT
