# docker build -t onestep .
# docker run --gpus all --ipc=host --rm -it -v "$PWD:/work" onestep fit --config demo
# --ipc=host: batches travel in shared memory, of which a container has 64 MB by default; 4 loader processes want more.
# The image holds the wheel and the locked versions, but no data and no base except the toy one.
FROM python:3.11-slim

# Users other than root have no home: caches of the hub and of compiled kernels go to the mounted folder.
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 HF_HOME=/work/.cache/huggingface XDG_CACHE_HOME=/work/.cache \
    TORCHINDUCTOR_CACHE_DIR=/work/.cache/torchinductor

# torch.compile, which configs/hardware/h200.yaml asks for, needs a compiler where it runs.
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*

WORKDIR /build
COPY requirements.lock .
# torch first: its layer of several GB stays in the cache when other versions change.
RUN pip install -c requirements.lock torch
COPY . .
RUN pip install -c requirements.lock '.[exr,heif,video,remote,edges,lora,quantized,onnx,app,wandb]' && rm -rf /build/*

WORKDIR /work
ENTRYPOINT ["onestep"]
