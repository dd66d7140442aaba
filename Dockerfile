# syntax=docker/dockerfile:1
# The program alone: PostgreSQL and Redis are other containers (docker-compose.yml).

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# The caches are the builder's, so what is kept of the layer is the copied program.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked -p postrider \
    && cp target/release/postrider /postrider

FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="Postrider" \
      org.opencontainers.image.description="An email sending platform that you run yourself" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/postrider --shell /usr/sbin/nologin postrider \
    && install -d -o postrider -g postrider -m 0700 /var/lib/postrider
COPY --from=build /postrider /usr/local/bin/postrider
USER postrider
# The node's identity and its journal: a volume of its own for each container.
VOLUME /var/lib/postrider
EXPOSE 8080 9464
# The process itself: whether its database answers is /readyz, which a restart would not mend.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD curl -fsS http://127.0.0.1:9464/healthz || exit 1
# SIGTERM drains.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/postrider"]
CMD ["serve", "--config", "/etc/postrider/postrider.toml"]
