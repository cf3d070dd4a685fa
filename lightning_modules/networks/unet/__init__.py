"""U-Nets that diffusion models and flows learn with; see ``network.UNet`` for what all of them take and give."""
