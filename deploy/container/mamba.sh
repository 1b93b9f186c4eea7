#!/bin/sh
# Build mamba_ssm for CUDA into a virtual environment that has a CUDA build of torch:
# mamba.sh PYTHON. nvcc comes from PyPI, in the release that torch was built for, and goes again.
set -eu
python=$1

apt-get update
apt-get install --yes --no-install-recommends g++
release=$("$python" -c 'import torch; print(torch.version.cuda)')
# What mamba_ssm itself asks for is on no list of ours: constraints.txt is written on a CPU machine.
toolchain="nvidia-cuda-nvcc nvidia-cuda-crt nvidia-nvvm nvidia-cuda-cccl"
for package in $toolchain; do
    pip --python "$python" install "$package==$release.*"
done
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
CUDA_HOME=$packages/nvidia/cu${release%%.*}
export CUDA_HOME
# The linker asks for libcudart.so; the package has the file that programs load.
ln -sf "libcudart.so.${release%%.*}" "$CUDA_HOME/lib/libcudart.so"
ln -sfn lib "$CUDA_HOME/lib64"
pip --python "$python" install setuptools wheel ninja packaging
python3 requirements.py cuda | grep '^mamba-ssm' > mamba.txt
MAMBA_FORCE_BUILD=TRUE pip --python "$python" install --no-build-isolation --requirement mamba.txt
# shellcheck disable=SC2086
pip --python "$python" uninstall --yes $toolchain
