"""The machine: memory, transfers to a device, timing, and how a matrix product is formed; on CPUs and on CUDA.

malloc.py: how glibc keeps and returns freed memory
matmul_precision.py: float32 products of narrower values by faster units, exactly
memory.py: the memory that the process and a device use, have used, and have free
prefetch.py: copies to the device that overlap with its work
product_rate.py: how fast matrices are multiplied, by dtype, measured once
profiler.py: where a step's time goes, by kind of work
workspace.py: long-lived buffers, allocated once
"""
