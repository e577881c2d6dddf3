"""What figures of merit mean."""

from src.evaluation.metrics import (
    component_anomaly_metrics,
    pixel_anomaly_metrics,
    retrieval_average_precision,
)

__all__ = ["component_anomaly_metrics", "pixel_anomaly_metrics", "retrieval_average_precision"]
