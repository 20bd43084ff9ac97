"""The machine: memory, transfers, timing, and how a matrix product is formed. No other room knows CUDA or glibc."""
