import os

# The tests run side by side, one a core: more threads in each would only wait for one another. Read when torch is imported, and
# inherited by the programs that tests start.
os.environ["OMP_NUM_THREADS"] = "1"
