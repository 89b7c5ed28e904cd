# mapfs in a container. Run it with the device and the right to mount:
#
#	docker run --device /dev/fuse --cap-add SYS_ADMIN \
#		-v BACKING:/backing -v MOUNTPOINT:/mnt:rshared IMAGE /backing /mnt
#
# See docs/docker.md.

FROM golang:1.26-bookworm AS build
LABEL mapfs.stage=build
WORKDIR /src
COPY . .
# With a vendor directory in the context the build needs no network.
ARG VERSION=dev
RUN cmd/build.sh /mapfs -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION"

FROM debian:bookworm-slim
LABEL mapfs.stage=run
# fuse3 for fusermount3 and mount.fuse.
RUN apt-get update \
	&& apt-get install -y --no-install-recommends fuse3 \
	&& apt-get clean && rm -rf /var/lib/apt/lists/*
COPY --from=build /mapfs /usr/local/bin/mapfs
COPY integration/docker/entrypoint.sh /usr/local/lib/mapfs/entrypoint
ENTRYPOINT ["/usr/local/lib/mapfs/entrypoint"]
CMD ["--help"]
