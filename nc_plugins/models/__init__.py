"""Models that upstream lacks; each file is imported by the configs that use it."""
