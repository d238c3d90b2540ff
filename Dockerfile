# The gateway alone, as one static binary: about 15 MB, no shell, no package manager, no root.
#
#   docker build -t pilotlight .
#   docker run -p 8000:8000 -v ./pilotlight.yaml:/etc/pilotlight/pilotlight.yaml:ro pilotlight
#
# The configuration must say "listen: 0.0.0.0:8000": the default is loopback, which nobody outside the container reaches.
# Backends that make sense in here are those whose replicas live elsewhere (static); the process backend
# would find neither Python nor an engine.

FROM golang:1.26 AS build
WORKDIR /src
# Modules first: they change less often than the code, and this layer is kept.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION}" -o /out/pilotlight ./cmd/pilotlight
# A scratch image has no mkdir: the state folder and /tmp are made here and copied with their owner.
RUN mkdir -p /out/state /out/tmp

FROM scratch
# Roots for https upstreams and key sets.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/pilotlight /pilotlight
# A number, not a name: there is no /etc/passwd, and Kubernetes' runAsNonRoot can check numbers only.
COPY --from=build --chown=65532:65532 /out/state /var/lib/pilotlight
COPY --from=build --chown=65532:65532 /out/tmp /tmp
USER 65532:65532
# The default state_dir lies below HOME. Mount a volume here to keep learned start times.
ENV HOME=/var/lib/pilotlight
EXPOSE 8000
ENTRYPOINT ["/pilotlight"]
CMD ["serve", "-c", "/etc/pilotlight/pilotlight.yaml"]
