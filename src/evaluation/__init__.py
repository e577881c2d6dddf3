"""What figures of merit mean."""

from src.evaluation.components import component_anomaly_metrics
from src.evaluation.pixels import pixel_anomaly_metrics
from src.evaluation.ranking import retrieval_average_precision

__all__ = ["component_anomaly_metrics", "pixel_anomaly_metrics", "retrieval_average_precision"]
