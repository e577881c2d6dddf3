"""From tagged objects to a segmentation network that knows their classes."""
