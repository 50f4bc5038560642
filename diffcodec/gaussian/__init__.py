"""The Gaussian process: a diffusion model of pictures, its objectives, likelihood and samplers."""
