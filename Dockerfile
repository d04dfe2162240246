# syntax=docker/dockerfile:1.17
# One image for all services of docker-compose.yml; EXTRAS says what it can do.
FROM python:3.12.12-slim-bookworm AS build
ARG EXTRAS=dashboard,plan,ray,service
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE bebop.py ./
COPY traces traces
COPY profiler profiler
COPY simulator simulator
COPY dashboard dashboard
RUN python -m venv /opt/bebop && /opt/bebop/bin/pip install -c constraints.txt ".[${EXTRAS}]"

FROM python:3.12.12-slim-bookworm
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
