# One image for all services of docker-compose.yml; EXTRAS says what it can do.
# The digest is that of all platforms together, as docker-library/repo-info has it at 3effc3ea (5 August 2026).
FROM python:3.12.13-slim-bookworm@sha256:4766d8b510c428e595d74b9cc5bbb2fae8e26316fffb4adc89908d79aacd58a2 AS base

FROM base AS build
ARG EXTRAS=dashboard,plan,ray,service
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE bebop.py ./
COPY traces traces
COPY profiler profiler
COPY simulator simulator
COPY dashboard dashboard
RUN python -m venv /opt/bebop && /opt/bebop/bin/pip install -c constraints.txt ".[${EXTRAS}]"

FROM base
# The kernels are compiled where they lie, once, by the user that runs them: with a read-only root, here and now.
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin bebop && install -d -o bebop /data /var/cache/bebop
COPY --from=build /opt/bebop /opt/bebop
ENV PATH=/opt/bebop/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/var/cache/bebop
USER 10001
WORKDIR /data
RUN bebop simulate --set run.num_steps=6 --replications 1 --json > /dev/null
VOLUME ["/data"]
ENTRYPOINT ["bebop"]
CMD ["--help"]
