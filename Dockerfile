# The service with the shipped checkpoint: CPU as it stands, CUDA by build arguments.
#
#   docker build -t locore .
#   docker build -t locore:cuda --build-arg ACCELERATOR=cuda \
#     --build-arg TORCH=2.13.0+cu130 --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
#
# Every Python package has the version of constraints.txt. deploy/container/check.sh runs these
# steps where there is no Docker.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
SHELL ["/bin/sh", "-eu", "-c"]
ARG ACCELERATOR=cpu
ARG TORCH=2.13.0+cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# `extract` takes images instead of descriptors, and makes the sample gallery.
ARG EXTRAS=extract
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_CONSTRAINT=/build/constraints.txt \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY constraints.txt pyproject.toml deploy/container/requirements.py ./
# Without pip: what is copied to the last stage holds what the service runs with, no more.
RUN python3 -m venv --without-pip /opt/locore && \
    if [ "${ACCELERATOR}" = cuda ]; then EXTRAS="${EXTRAS},cuda"; fi && \
    python3 requirements.py "${EXTRAS}" > requirements.txt
# A local version such as +cpu is on no other index, so the extra one cannot be mistaken for PyPI.
# A layer of its own: it is most of the image and changes least.
# hadolint ignore=DL3059
RUN pip --python /opt/locore/bin/python install --extra-index-url "${TORCH_INDEX}" "torch==${TORCH}"
# hadolint ignore=DL3059
RUN pip --python /opt/locore/bin/python install --requirement requirements.txt
COPY deploy/container/mamba.sh ./
RUN [ "${ACCELERATOR}" != cuda ] || sh mamba.sh pip --python /opt/locore/bin/python
COPY LICENSE README.md ./
COPY client client
COPY model model
COPY service service
RUN pip --python /opt/locore/bin/python install --no-deps ./client . && \
    rm -r /opt/locore/lib/python3*/site-packages/torch/test && \
    rm /opt/locore/lib/python3*/site-packages/torch/bin/test_* \
       /opt/locore/lib/python3*/site-packages/torch/bin/protoc*

FROM ${PYTHON_IMAGE}
SHELL ["/bin/sh", "-eu", "-c"]
ARG ACCELERATOR=cpu
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="locore" \
      org.opencontainers.image.description="Image re-ranking as a service" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Triton compiles its CUDA driver when it first launches a kernel: CUDA alone needs a compiler here.
# Debian's own point releases are what the base image's tag pins.
# hadolint ignore=DL3008
RUN if [ "${ACCELERATOR}" = cuda ]; then \
        apt-get update && \
        apt-get install --yes --no-install-recommends gcc libc6-dev && \
        rm -rf /var/lib/apt/lists/*; \
    fi
RUN groupadd --gid 10001 locore && \
    useradd --uid 10001 --gid locore --home-dir /data --no-create-home --shell /usr/sbin/nologin locore && \
    install --directory --owner locore --group locore --mode 0750 /data
COPY --from=build /opt/locore /opt/locore
ENV PATH=/opt/locore/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    LOCORE_HOST=0.0.0.0 \
    LOCORE_PORT=8000 \
    LOCORE_DATA_DIR=/data \
    LOCORE_LOG_FORMAT=json
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
# http.client and not urllib: a proxy set in the environment is not for this. `localhost` has both
# addresses, and LOCORE_PORT may be a link to another container.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; p = os.environ.get('LOCORE_PORT', ''); c = http.client.HTTPConnection('localhost', int(p) if p.isdecimal() else 8000, timeout=4); c.request('GET', '/health/ready'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["locore"]
CMD ["serve"]
