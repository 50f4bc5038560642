"""One thread for each test process: the pictures are tiny, and the processes share the cores."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
