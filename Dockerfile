# paropt with CUDA's torch. The database is another container; see docker-compose.yml.
FROM python:3.12-slim

# a user with a home: paropt never needs to be root
RUN useradd --create-home --uid 1000 paropt \
    && install -d -o paropt -g paropt /data /checkpoints /home/paropt/.local/share/paropt

WORKDIR /opt/paropt
# dependencies first: they change less often than the code
COPY constraints.txt pyproject.toml README.md LICENSE ./
# --build-arg EXTRAS=[remote] for data and checkpoints by URL
ARG EXTRAS=
COPY paropt/__init__.py paropt/__init__.py
COPY models/__init__.py models/__init__.py
RUN pip install --no-cache-dir -c constraints.txt ".${EXTRAS}"
COPY paropt paropt
COPY models models
COPY paramspaces paramspaces
COPY paramfiles paramfiles
RUN pip install --no-cache-dir --no-deps --force-reinstall .

USER paropt
WORKDIR /home/paropt
RUN ln -s /opt/paropt/paramspaces /opt/paropt/paramfiles .
ENV PYTHONUNBUFFERED=1
ENTRYPOINT ["paropt"]
CMD ["--help"]
