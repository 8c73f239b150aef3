"""Models that OpenMMLab lacks. The configs that use them import them."""
