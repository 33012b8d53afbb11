# A server of one classifier; docs/deploy.md says how to run it.
#   docker build --tag hf-videovit .
#   docker build --tag hf-videovit --build-arg EXTRAS=serve,openvino --build-arg PIP_ARGS="--extra-index-url INDEX" .
FROM python:3.12-slim

ARG EXTRAS=serve
ARG PIP_ARGS=""

COPY setup.py pyproject.toml README.md LICENSE /package/
COPY examples /package/examples
COPY hf_videovit /package/hf_videovit
RUN pip install --no-cache-dir ${PIP_ARGS} "/package[${EXTRAS}]" && rm -r /package

RUN useradd --create-home --uid 1000 server
USER server
WORKDIR /home/server

EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["hf-videovit", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["/model"]
