"""What is to be seen on a machine with GPUs: ``python -m tests.gpu``; see docs/gpu.md."""
