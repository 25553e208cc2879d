"""What happens around a training step: gradients, logging, averages, checkpoints, signals."""
