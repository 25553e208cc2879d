import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_modules.training.monitoring import MemoryPeak, UpdateRatio, _sample
from lightning_modules.training.precision import set_tf32

pytestmark = pytest.mark.filterwarnings("ignore")


class Weight(LightningModule):
    """Moves the first of two values by 0.01 at every step."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))

    def training_step(self, batch, batch_idx):
        return self.weight[0] * 1.0

    def configure_optimizers(self):
        return torch.optim.SGD([self.weight], lr=0.01)

    def train_dataloader(self):
        return [0] * 8


class Recorder(Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, *args):
        self.seen.append(trainer.callback_metrics.get("train/update_ratio", torch.tensor(0.0)).item())
        self.names = set(trainer.callback_metrics)


def fit(callback, **options):
    recorder = Recorder()
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[callback, recorder],
        max_steps=4,
        **options,
    )
    trainer.fit(Weight())
    return recorder


def test_the_update_ratio_is_the_length_of_a_logged_step_over_that_of_the_weights():
    seen = fit(UpdateRatio(), log_every_n_steps=2, accumulate_grad_batches=2).seen
    assert seen[:3] == [0, 0, 0]  # two steps of two micro-batches; the second is logged
    assert seen[3] == pytest.approx(0.01 / (2.99**2 + 16) ** 0.5, rel=1e-3)
    assert seen[7] == pytest.approx(0.01 / (2.97**2 + 16) ** 0.5, rel=1e-3)


def test_a_sample_of_a_large_weight_stands_for_its_whole_length():
    weight = torch.nn.Parameter(torch.randn(100, 1000, generator=torch.Generator().manual_seed(0)))
    assert len(_sample(weight)) <= 4096
    assert _sample(weight).norm().item() == pytest.approx(weight.norm().item(), rel=0.05)


def test_without_a_gpu_no_memory_is_logged():
    assert "train/gpu_memory_peak_gib" not in fit(MemoryPeak(), log_every_n_steps=1).names


@pytest.mark.parametrize(
    ("where", "convolutions", "products"),
    [("none", False, False), ("convolutions", True, False), ("all", True, True)],
)
def test_tf32_is_allowed_only_where_it_is_asked_for(where, convolutions, products):
    for before in ("none", "all"):
        set_tf32(before)
        set_tf32(where)
        assert torch.backends.cudnn.allow_tf32 is convolutions
        assert torch.backends.cuda.matmul.allow_tf32 is products
        torch.get_float32_matmul_precision()  # what Lightning asks at the start of a run on a GPU
    set_tf32("convolutions")
