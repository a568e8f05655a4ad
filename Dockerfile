# EPyMARL with limask, and StarCraft II with SMAC's maps where its licence is accepted.
#
#   docker build -t limask .                                  CPU, without StarCraft II
#   docker build -t limask:cuda --build-arg VARIANT=cuda .    NVIDIA GPUs; run it with --gpus all
#   docker build -t limask:sc2 --build-arg ACCEPT_SC2_EULA=PHRASE .
#
# StarCraft II 4.10 is Blizzard's, about 4 GB, and under its "AI and Machine Learning License". PHRASE is the one by
# which that licence is accepted: read both at https://github.com/Blizzard/s2client-proto#downloads. It is also what
# the archive is opened with, so that nobody can build it in without having typed it. An image that holds the game
# must not be passed on.
#
#   docker run --rm limask                                    SMAX 3m; further arguments replace these
#   docker run --rm -v "$PWD/results:/home/limask/epymarl/results" limask:sc2 \
#       --config=qmix_lim --env-config=sc2 with env_args.map_name=2s3z
#
# What is mounted for the results has to be writable by user 1000.

ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# --- StarCraft II, or an empty folder in its place -------------------------------------
FROM ${PYTHON_IMAGE} AS starcraft
# Debian's mirrors drop a version when the next one comes: a pinned one could soon not be built.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates curl unzip \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt
ARG ACCEPT_SC2_EULA=""
RUN if [ -z "$ACCEPT_SC2_EULA" ]; then \
        echo "StarCraft II is left out: its licence has not been accepted (ACCEPT_SC2_EULA)"; \
        mkdir StarCraftII; \
    else \
        curl --fail --silent --show-error --location --retry 3 --output sc2.zip \
            https://blzdistsc2-a.akamaihd.net/Linux/SC2.4.10.zip \
        && unzip -q -P "$ACCEPT_SC2_EULA" sc2.zip \
        && rm sc2.zip; \
    fi

# --- sources that are on no package index, each at a fixed commit ------------------------
FROM ${PYTHON_IMAGE} AS sources
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates git \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /sources
ARG EPYMARL_COMMIT=cbc38c09588064eab978501d0f12c2cf58fa7fc2
ARG SMAC_COMMIT=d6aab33f76abc3849c50463a8592a84f59a5ef84
ARG SMACLITE_COMMIT=0d6abbea1334011984ae4704a0ef7a33c36057d6
RUN fetch() { \
        git init --quiet "$1" \
        && git -C "$1" fetch --quiet --depth 1 "https://github.com/$2.git" "$3" \
        && git -C "$1" checkout --quiet FETCH_HEAD; \
    } \
    && fetch epymarl uoe-agents/epymarl "$EPYMARL_COMMIT" \
    && fetch smac oxwhirl/smac "$SMAC_COMMIT" \
    && fetch smaclite uoe-agents/smaclite "$SMACLITE_COMMIT"

# --- the image ----------------------------------------------------------------------------
FROM ${PYTHON_IMAGE}
# cpu | cuda. PyPI's torch brings CUDA's libraries along, so that both have the same base. What else torch needs comes
# with limask, for PyTorch's own index does not have the tested versions of it.
ARG VARIANT=cpu
WORKDIR /opt/limask
COPY constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    case "$VARIANT" in \
        cpu) pip install --no-deps --index-url https://download.pytorch.org/whl/cpu \
            "$(grep '^torch==' constraints.txt)" ;; \
        cuda) pip install -c constraints.txt torch ;; \
        *) echo "VARIANT=$VARIANT: expected cpu or cuda" >&2; exit 1 ;; \
    esac

# What EPyMARL, smac and smaclite need. Their own lists are not followed: smac's wants a protobuf too old for
# tensorboard, and smaclite's an rtree that has no wheel for this Python.
COPY setup.py pyproject.toml README.md LICENSE ./
COPY limask limask
COPY config config
COPY src_patch src_patch
COPY --from=sources /sources/smac /opt/smac
COPY --from=sources /sources/smaclite /opt/smaclite
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install -c constraints.txt '.[smax]' \
        absl-py gymnasium portpicker pygame==2.6.1 rtree==1.4.1 s2clientprotocol scikit-learn websocket-client \
    && pip install -c constraints.txt --no-deps pysc2 /opt/smac /opt/smaclite

# The folder is made here so that it is the user's, for runs write their results into it.
RUN useradd --create-home --uid 1000 limask \
    && install --directory --owner limask --group limask /home/limask/epymarl
COPY --from=starcraft --chown=limask /opt/StarCraftII /opt/StarCraftII
COPY --from=sources --chown=limask /sources/smac/smac/env/starcraft2/maps/SMAC_Maps /opt/StarCraftII/Maps/SMAC_Maps
COPY --from=sources --chown=limask /sources/epymarl /home/limask/epymarl
# s2clientprotocol's messages are of the kind that a current protobuf takes in its pure-Python implementation alone.
ENV SC2PATH=/opt/StarCraftII \
    PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python \
    PYTHONUNBUFFERED=1
USER 1000
WORKDIR /home/limask/epymarl
RUN limask install . && mkdir results
ENTRYPOINT ["python", "src/main.py"]
CMD ["--config=qmix_lim", "--env-config=smax", "with", "env_args.map_name=3m"]
