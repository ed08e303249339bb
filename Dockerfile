# One image for both Deployments: each names its program as its command.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=unknown
WORKDIR /src
# The modules in a layer of their own: they change less often than the code.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false \
    -ldflags "-s -w -X main.version=$VERSION" -o /out/ ./cmd/manager ./cmd/dispatcher

FROM gcr.io/distroless/static:nonroot
COPY --from=build /out/manager /out/dispatcher /
USER 65532:65532
ENTRYPOINT ["/manager"]
