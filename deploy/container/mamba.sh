#!/bin/sh
# Install mamba_ssm's Triton kernel where torch and the extra `cuda` already are:
#
#   deploy/container/mamba.sh PIP [OPTIONS OF PIP…]
#
# It comes as source, and its set-up reads torch: no isolation. Its CUDA extension is left out, which
# wants nvcc and which nothing here needs (SKIP_CUDA_BUILD), and no wheel that has one is fetched in
# its place (FORCE_BUILD); so that no other project gets this wheel, pip does not keep it. Of its
# dependencies the kernel needs none but torch, Triton and einops.
set -eu
export MAMBA_SKIP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE
"$@" install --no-deps --no-build-isolation --no-cache-dir mamba-ssm==2.3.2.post1
