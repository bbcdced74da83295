"""From a PyTorch classifier to a bundle whose numbers were compared with PyTorch at every stage."""

from edgeport_export.config import ExportConfig
from edgeport_export.parity import ParityReport, StageReport
from edgeport_export.pipeline import ExportResult, export

__all__ = ["ExportConfig", "ExportResult", "ParityReport", "StageReport", "export"]
