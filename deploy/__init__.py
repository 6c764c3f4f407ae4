"""One machine in one command, and the images and manifests for more."""
