FROM python:3.11-slim AS build
WORKDIR /build
RUN python -m venv /opt/venv
COPY pyproject.toml constraints.txt ./
RUN /opt/venv/bin/pip install --no-cache-dir -c constraints.txt '.[cpu]'

FROM python:3.11-slim AS native
WORKDIR /build
# Debian's newest of each, with its security updates.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev libnghttp2-dev make pkg-config && \
    rm -rf /var/lib/apt/lists/*
COPY Makefile ./
COPY server/native ./server/native
RUN make PY=/usr/local/bin/python server/native/http2.so server/native/decode.so

FROM python:3.11-slim
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends libnghttp2-14 && rm -rf /var/lib/apt/lists/*
# A number, so that Kubernetes can see it is not root. numba's cache holds code: no one else may write it.
RUN useradd --system --uid 10001 --no-create-home miaopi && install -d -o 10001 -m 0700 /var/cache/miaopi
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY proto ./proto
COPY features ./features
COPY models ./models
COPY policy ./policy
COPY server ./server
COPY --from=native /build/server/native/http2.so /build/server/native/decode.so ./server/native/
# models/demo is the registry of the demo, policy/products its policies: a lender mounts its own and names them in
# MIAOPI_BUNDLES and MIAOPI_POLICIES.
# Listening beyond loopback starts only with MIAOPI_TLS_CERT and MIAOPI_TLS_KEY. Also to be given: REDIS_URL, MIAOPI_TOKEN_SECRETS;
# MIAOPI_NATIVE_LISTEN where the native front end is to listen too.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/var/cache/miaopi \
    MIAOPI_LISTEN=0.0.0.0:50051
USER 10001
EXPOSE 50051
STOPSIGNAL SIGTERM
# HEALTH_TLS_NAME: a name that the certificate carries, where localhost is not one of them. Under mTLS the probe shows the
# server's own certificate; where its issuer is not MIAOPI_TLS_CLIENT_CA, probe from outside with a client's.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-c", "\
import os, pathlib, grpc; \
from grpc_health.v1 import health_pb2 as pb, health_pb2_grpc as rpc; \
listen, cert, key = (os.environ.get('MIAOPI_' + name, '') for name in ('LISTEN', 'TLS_CERT', 'TLS_KEY')); \
target = listen if listen.startswith('unix:') else 'localhost:' + listen.rpartition(':')[2]; \
pem = [pathlib.Path(path).read_bytes() for path in (cert, key, cert) if cert]; \
name = ('grpc.ssl_target_name_override', os.environ.get('HEALTH_TLS_NAME', 'localhost')); \
channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(*pem), [name]) if cert else grpc.insecure_channel(target); \
reply = rpc.HealthStub(channel).Check(pb.HealthCheckRequest(), timeout=4); \
raise SystemExit(reply.status != pb.HealthCheckResponse.SERVING)"]
CMD ["python", "-m", "server"]
