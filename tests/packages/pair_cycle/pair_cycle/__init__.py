"""A small CycleGAN for gesso."""
