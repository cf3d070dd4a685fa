"""A run as a folder that others can use: weights, config, a picture, a model card."""
