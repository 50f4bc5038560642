"""Integer-exact inference: the same integers on every device, thread count and tiling."""
