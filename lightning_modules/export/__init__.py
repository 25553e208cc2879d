"""Handing a trained model over: as a diffusers folder, a torch.export program or an ONNX graph."""

from lightning_modules.export.writing import ExportOptions, export_model

__all__ = ["ExportOptions", "export_model"]
