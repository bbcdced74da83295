"""What Lightning writes, in a process of its own: a LightningModule around torchvision's ResNet-18, trained for a step.

python lightning_reference.py FOLDER, with pytorch-lightning and torchvision on PYTHONPATH. Written are
``plain.ckpt``, whose hyperparameters are numbers and texts, ``objects.ckpt``, whose hyperparameters hold an object, and
an input with its logits (``resnet18.npz``).
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import tvshim  # before Lightning, which imports torchvision where it finds it

import pytorch_lightning as pl  # isort: skip
from reference_nets import randomize, save_logits
from torch import nn


class Classifier(pl.LightningModule):
    def __init__(self, lr: float = 0.0, name: str = "resnet18", where: object = None) -> None:  # noqa: ARG002
        super().__init__()
        self.save_hyperparameters()
        self.model = tvshim.torchvision.models.resnet18(num_classes=5)
        self.loss = nn.CrossEntropyLoss()

    def training_step(self, batch: list[torch.Tensor], _index: int) -> torch.Tensor:
        return self.loss(self.model(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)


def main(folder: Path) -> None:
    torch.manual_seed(0)
    for name, where in (("plain", None), ("objects", Path("data"))):
        module = Classifier(where=where)
        randomize(module.model, module.model.fc, module.model, 64)
        data = torch.utils.data.TensorDataset(torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 3]))
        trainer = pl.Trainer(
            max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            default_root_dir=folder,
        )  # fmt: skip
        trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=4))
        trainer.save_checkpoint(folder / f"{name}.ckpt")
        if name == "plain":
            save_logits(folder / "resnet18.npz", module.model.eval(), 224)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
