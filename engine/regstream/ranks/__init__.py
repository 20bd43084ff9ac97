"""The processes of one run, started by a launcher such as torchrun, and what they send one another.

environment.py: what a launcher's variables say of this process
group.py: the processes, joined by torch.distributed: JSON values and tensors from one to another
watch.py: how a rank learns that another has failed or died, and ends with it
heartbeat.py: what a rank tells the others each second
ending.py: which rank failed first, and how all end
chunks.py: what is on its way at a time
reduction.py: sums of all processes added up at one of them, while it computes
"""
