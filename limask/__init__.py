"""limask: masked-autoencoder QMIX for the PyMARL family of multi-agent RL codebases."""

__version__ = "0.1.0"
