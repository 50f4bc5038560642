"""The absorbing process: pixels are masked grid by grid, and colours are what is predicted."""
