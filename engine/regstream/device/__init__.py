"""The machine: memory, accelerators, timing, and how a matrix product is formed.

accelerator.py: what a merge asks of an accelerator
accelerator_kinds.py: the kinds of them, and the one of a device
garbage_collector.py: Python's garbage collector, paused while libraries are imported
cuda.py: CUDA
malloc.py: how glibc keeps and returns freed memory
matmul_precision.py: products of narrower values by faster units into float32 sums, exactly
memory.py: the peak of a step's memory
process_memory.py: the memory that the process holds now
product_rate.py: how fast matrices are multiplied, by dtype, measured once
profiler.py: where a step's time goes, by kind of work
staging.py: host memory between a file and a tensor
tiles.py: how much of a matrix a device handles at a time
workspace.py: long-lived buffers, allocated once
"""
