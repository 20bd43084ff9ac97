"""The machine: memory, transfers to a device, timing, and how a matrix product is formed; on CPUs and on CUDA.

collector.py: Python's garbage collector, paused while libraries are imported
malloc.py: how glibc keeps and returns freed memory
matmul_precision.py: float32 products of narrower values by faster units, exactly
memory.py: the peak of a step's memory, and what a device has free
process_memory.py: the memory that the process holds now
prefetch.py: copies to the device that overlap with its work
product_rate.py: how fast matrices are multiplied, by dtype, measured once
profiler.py: where a step's time goes, by kind of work
workspace.py: long-lived buffers, allocated once
"""
