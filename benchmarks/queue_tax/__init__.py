"""What the queue costs a device: the same requests through the fleet and through the engine by hand."""
