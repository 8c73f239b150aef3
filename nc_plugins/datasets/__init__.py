"""Data that upstream lacks: the embedded digits sets and converters into standard layouts."""
