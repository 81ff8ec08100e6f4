# The studies and exports on CPUs.
#
#     docker build -t normshift .
#     docker run --rm -v "$PWD/runs:/normshift/runs" -v "$PWD/data:/normshift/data" normshift \
#         python experiments/cls_imagenet.py --smoke
FROM python:3.12-slim

# a compiler stays in the image: on a processor with other vector instructions the kernels are compiled anew
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*

# what is compiled and cached lies where any user of the container can read it
ENV TORCH_EXTENSIONS_DIR=/opt/normshift-kernels MPLCONFIGDIR=/tmp/matplotlib PYTHONUNBUFFERED=1

# both from one index: a CPU build of one does not import beside the other's CUDA build
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu

WORKDIR /normshift
COPY . .
RUN pip install --no-cache-dir -e '.[studies,export]' && python -m normshift.build && chmod -R a+rX /opt/normshift-kernels
