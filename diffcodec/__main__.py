"""`python -m diffcodec` is the command line."""

from diffcodec.cli import main

if __name__ == "__main__":
    main(prog_name="diffcodec")
