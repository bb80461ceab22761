"""Transfer: pre-train a network on CIFAR-10, fine-tune it on CIFAR-100, and compare with training from scratch."""
