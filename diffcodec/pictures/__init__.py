"""Pictures in and out: files, modes, 16-bit PNG, metadata, and the Pillow plugin."""
