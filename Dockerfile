# The image: the exporter and the mock library in one folder, on a base that has only glibc.
#
#   docker build --tag nvml-exporter:0.1.0 .
#   docker run --rm nvml-exporter:0.1.0 --mock --once
#
# SBOM (CycloneDX): `docker build --target sbom --output sbom .` The binaries embed the same list of crates
# (cargo-auditable), which image scanners read.
#
# Drop-in replacement for dcgm-exporter, with an unchanged manifest: `docker build --target dcgm-exporter .`
#
# For both platforms: `docker buildx build --platform linux/amd64,linux/arm64 .`; arm64 is tested under emulation.
# The licence, vendor and address are labels of the publisher.
#
# NVML is not in the image: the container runtime mounts the host's driver library. That library needs glibc and
# is opened with dlopen, so neither a static binary nor musl works.

FROM rust:1.95.0-bookworm AS build
RUN cargo install --locked cargo-auditable@0.7.7 cargo-cyclonedx@0.5.9
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY mock-nvml ./mock-nvml
COPY src ./src
# Not built here, but cargo needs every workspace member.
COPY tests/fuzz ./tests/fuzz
# The revision of `nvml_exporter_build_info`.
ARG REVISION=unknown
RUN NVML_EXPORTER_REVISION="${REVISION}" cargo auditable build --profile dist --locked \
 && cargo cyclonedx --format json --spec-version 1.5 --describe binaries --no-build-deps

FROM scratch AS sbom
COPY --from=build /src/nvml-exporter_bin.cdx.json /src/mock-nvml/mock_nvml_cdylib-rlib.cdx.json /

# The same Debian release as above, so that glibc is not older than the one linked against. These images have no
# version tags: for a reproducible build, pin the digest.
FROM gcr.io/distroless/cc-debian12:nonroot AS exporter
ARG VERSION=0.1.0
ARG REVISION=unknown
# RFC 3339, for example `--build-arg CREATED="$(date --utc +%FT%TZ)"`.
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="nvml-exporter" \
      org.opencontainers.image.description="Prometheus exporter for NVIDIA GPUs that reads NVML directly" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="gcr.io/distroless/cc-debian12:nonroot"

# `--mock` loads the library from the folder of the executable.
COPY --from=build /src/target/dist/nvml-exporter /src/target/dist/libmock_nvml.so /usr/local/bin/

# The NVIDIA container runtime mounts every GPU of the node and, of the driver's libraries, the one with NVML.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=utility

# The kubelet's pod-resources socket is accessible only to root. No capability is needed and no file is
# written: run it with all capabilities dropped and a read-only root file system. Only `--mock` needs a
# writable folder: TMPDIR (default /tmp).
# hadolint ignore=DL3002
USER 0:0
EXPOSE 9400
ENTRYPOINT ["/usr/local/bin/nvml-exporter"]

# For an existing DaemonSet of dcgm-exporter: only the image of the manifest changes.
FROM exporter AS dcgm-exporter
ENV NVML_EXPORTER_DIALECT=dcgm-exporter

FROM exporter
