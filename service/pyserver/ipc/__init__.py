"""The other process: segment, semaphores, channel."""
