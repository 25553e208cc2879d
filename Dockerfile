# docker build -t onestep .
# docker run --gpus all --rm -it -v "$PWD:/work" onestep fit --config demo
# The image holds the wheel and the locked versions, but no data and no base except the toy one.
FROM python:3.11-slim

# Users other than root have no home: caches of the hub and of compiled kernels go to the mounted folder.
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 HF_HOME=/work/.cache/huggingface XDG_CACHE_HOME=/work/.cache

WORKDIR /build
COPY requirements.lock .
# torch first: its layer of several GB stays in the cache when other versions change.
RUN pip install -c requirements.lock torch
COPY . .
RUN pip install -c requirements.lock '.[exr,lora,onnx,app]' && rm -rf /build/*

WORKDIR /work
ENTRYPOINT ["onestep"]
