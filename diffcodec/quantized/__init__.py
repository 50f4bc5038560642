"""The quantised process: noise is quantisation error, and rungs of a ladder of planes remove it."""
