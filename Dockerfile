# syntax=docker/dockerfile:1
# The image as `make release` makes it:
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) \
#     --build-arg VERSION=0.1.0 --build-arg REVISION=$(git rev-parse HEAD) .
FROM --platform=$BUILDPLATFORM rust:1.95-bookworm AS build
ARG TARGETARCH
WORKDIR /src
COPY release release
RUN release/setup "$TARGETARCH"
COPY . .
ARG SOURCE_DATE_EPOCH
RUN binary=$(release/build "$TARGETARCH") && release/root "$TARGETARCH" "$binary" /image

FROM scratch
ARG VERSION REVISION
LABEL org.opencontainers.image.title="volumeviz" \
  org.opencontainers.image.description="Measures the Docker volumes of every node of a Kubernetes cluster" \
  org.opencontainers.image.licenses="Apache-2.0" \
  org.opencontainers.image.version="$VERSION" \
  org.opencontainers.image.revision="$REVISION"
COPY --from=build /image /
# The chart has the agent, which reads files of every owner, run as 0.
USER 65532:65532
ENTRYPOINT ["/volumeviz"]
