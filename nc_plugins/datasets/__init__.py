"""Datasets, converters and transforms that OpenMMLab lacks."""
