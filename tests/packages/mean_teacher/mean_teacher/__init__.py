"""An autoencoder with a mean teacher, and a metric, for gesso."""
