# The image: the exporter and the mock library, side by side, on glibc and nothing else.
#
#   docker build --tag nvml-exporter:0.1.0 .
#   docker run --rm nvml-exporter:0.1.0 --mock --once
#
# What it is made of, as CycloneDX: `docker build --target sbom --output sbom .` The binaries hold the same
# list, which scanners of images read.
#
# In the place of dcgm-exporter, under an unchanged manifest: `docker build --target dcgm-exporter .`
#
# NVML is not in the image: the container runtime lays the host's driver library in. It is glibc code
# that is opened at run time, so neither a static binary nor musl would do.

FROM rust:1.95.0-bookworm AS build
RUN cargo install --locked cargo-auditable@0.7.7 cargo-cyclonedx@0.5.9
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY mock-nvml ./mock-nvml
COPY src ./src
# Not built here, but a workspace wants all of its members.
COPY tests/fuzz ./tests/fuzz
RUN cargo auditable build --release --locked \
 && cargo cyclonedx --format json --spec-version 1.5 --describe binaries --no-build-deps

FROM scratch AS sbom
COPY --from=build /src/nvml-exporter_bin.cdx.json /src/mock-nvml/mock_nvml_cdylib-rlib.cdx.json /

# The same Debian as above, so that the glibc is no older than the one that was linked against. The
# publisher gives these images no tags by version; whoever needs one fixed pins the digest of a mirror.
FROM gcr.io/distroless/cc-debian12:nonroot AS exporter
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="nvml-exporter" \
      org.opencontainers.image.description="Prometheus exporter for NVIDIA GPUs that reads NVML directly" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# `--mock` looks for the library beside the executable.
COPY --from=build /src/target/release/nvml-exporter /src/target/release/libmock_nvml.so /usr/local/bin/

# What the NVIDIA container runtime is to lay in: every GPU of the node, and of the driver's libraries
# the one that holds NVML.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=utility

# The kubelet's pod-resources socket lets in root alone. No capability is needed beside that, and nothing
# is written: run it with all capabilities dropped and a read-only root file system. Only `--mock`
# wants a folder to write to, which TMPDIR names (/tmp unless it says otherwise).
# hadolint ignore=DL3002
USER 0:0
EXPOSE 9400
ENTRYPOINT ["/usr/local/bin/nvml-exporter"]

# The same for an existing DaemonSet of dcgm-exporter: its operator changes the image and nothing else.
FROM exporter AS dcgm-exporter
ENV NVML_EXPORTER_DIALECT=dcgm-exporter

FROM exporter
