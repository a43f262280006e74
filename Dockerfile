# The gateway as a container: docker build -t gateway . && docker run -v ./gateway.toml:/etc/gateway/gateway.toml:ro -p 4000:4000 gateway
#
# No image has been built from this file yet: where it was written there is no container engine. Its one RUN
# step is deploy/install.sh, which tests/system executes in an empty folder, and tests/system/test_docker.py
# looks at every path, port and variable named here.

FROM python:3.13-slim-bookworm AS build
COPY setup.py pyproject.toml constraints.txt README.md LICENSE /src/
COPY protos /src/protos
COPY src /src/src
COPY twisted /src/twisted
COPY deploy/install.sh /src/deploy/install.sh
RUN /src/deploy/install.sh /src /opt/gateway

FROM python:3.13-slim-bookworm
COPY --from=build /opt/gateway /opt/gateway
ENV PATH=/opt/gateway/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    GATEWAY_CONFIG=/etc/gateway/gateway.toml
# Nobody's number: no user of that name has to exist, and nothing in the image belongs to it.
USER 10001:10001
WORKDIR /tmp
# 4000 is for clients. 9100 answers /metrics, /health and /ready when the configuration says
# metrics = ["tcp:9100"]; the admin port stays on the container's loopback unless it has a key.
EXPOSE 4000 9100
STOPSIGNAL SIGTERM
# With listen.workers any of them answers: a dead one is the parent's affair, not the engine's.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:4000/health', timeout=2)"]
ENTRYPOINT ["twistd", "-n", "--pidfile=", "gateway"]
