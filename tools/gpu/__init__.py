"""`tools/gpu_check`: what regstream does on an accelerator, as one table.

beside_cpu.py: the same merge on the device and on the CPU
check.py: all parts one after another, each within its time
child.py: work in a process of its own, which can be killed
eigendecomposition.py: what an eigendecomposition takes beside its matrix
expected.py: what the plan and the device's product rate say of a merge
full_width.py: merges at the width of published models
in_memory.py: the plain implementation on the device
machine.py: card, driver and libraries
marked_tests.py: the tests that are marked for accelerators
report.py: rows, and the table of them
requirements.py: what is not installed
resume.py: a merge that is killed and resumed
setting.py: what is run on a card, and what in a dry run
"""
