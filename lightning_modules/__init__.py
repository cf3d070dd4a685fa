"""What is trained: one model family a file, by name in ``lightning_modules.catalogue``."""
